/*
 * ep.h - the handlers of the route table, one family a file.
 *
 * A handler parses the body into a plain struct (codec.h), calls one engine
 * function and leaves request.reply; a refusal goes through problem.h. It runs
 * on a worker thread (the quick ones on an event loop) and owns the request
 * while it runs.
 */
#ifndef SERVER_EP_H
#define SERVER_EP_H

#include "server/route.h"

/* ep_info.c: probes and what the daemon is */
ep_fn ep_root, ep_healthz, ep_livez, ep_readyz, ep_openapi, ep_metrics, ep_info;
/* ep_encoders.c */
ep_fn ep_encoders_list, ep_encoder_put, ep_encoder_get, ep_encoder_delete;
/* ep_embeddings.c */
ep_fn ep_embeddings, ep_tokenize, ep_similarity;
/* ep_collections.c */
ep_fn ep_collections_list, ep_collection_put, ep_collection_get,
    ep_collection_patch, ep_collection_delete, ep_aliases_list, ep_alias_put,
    ep_alias_get, ep_alias_delete;
/* ep_items.c */
ep_fn ep_items_add, ep_items_list, ep_items_delete, ep_item_put, ep_item_get,
    ep_item_patch, ep_item_delete;
/* ep_images.c */
ep_fn ep_image_put, ep_image_get, ep_image_delete, ep_image_views,
    ep_search_image;
/* ep_search.c */
ep_fn ep_search, ep_search_batch;
/* ep_pairs.c */
ep_fn ep_pairs_add, ep_pairs_list, ep_pair_get, ep_pair_delete, ep_feedback;
/* ep_learn.c: training, generations, jobs */
ep_fn ep_train, ep_generations_list, ep_generation_get, ep_weights, ep_folder,
    ep_promote, ep_rollback, ep_jobs_list, ep_job_get, ep_job_cancel,
    ep_job_events;
/* ep_admin.c */
ep_fn ep_export, ep_import, ep_backup_start, ep_backups_list, ep_backup_get;

/* ep_items.c: the answer to one write of an item: 201 or 200, its ETag. */
struct engine_outcome;
void ep_written(
    struct request *req, const struct engine_outcome *outcome, const char *id);

#endif
