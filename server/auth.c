#include "server/auth.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/hash.h"

#define KEYS_MAX 16 /* of one set; several so that keys can be exchanged */
#define KEY_BYTES_MIN 16
#define KEY_BYTES_MAX 256
#define SALT_BYTES 32
#define GUESSERS 1024 /* addresses whose failures are remembered */

struct key_set {
    uint8_t digest[KEYS_MAX][SHA256_BYTES];
    size_t n;
};

struct keys {
    struct key_set sets[SCOPE_ADMIN + 1]; /* [SCOPE_READ..SCOPE_ADMIN] */
    bool any;
};

/* Failures of the addresses that fall into one slot of the table. */
struct guesser {
    uint64_t address_hash;
    int64_t window_ms;
    unsigned failures;
};

struct auth {
    pthread_mutex_t lock;
    struct keys keys;                  /* lock */
    struct guesser guessers[GUESSERS]; /* lock */
    uint8_t salt[SALT_BYTES];          /* constant */
    uint64_t seed;                     /* constant */
    unsigned failures_max;             /* constant */
    bool enabled;                      /* constant: see auth_reload */
};

static void
digest_key(const struct auth *auth, const char *key, size_t len,
    uint8_t out[SHA256_BYTES])
{
    struct sha256 ctx;
    sha256_start(&ctx);
    sha256_add(&ctx, auth->salt, SALT_BYTES);
    sha256_add(&ctx, key, len);
    sha256_finish(&ctx, out);
}

static enum err
add_key(const struct auth *auth, struct keys *keys, enum scope scope,
    const char *key, size_t len, const char *source, struct fault *fault)
{
    struct key_set *set = &keys->sets[scope];
    if (len < KEY_BYTES_MIN || len > KEY_BYTES_MAX)
        return fault_set(fault, ERR_INVALID, "",
            "%s: a key has %zu bytes; it must have %d to %d", source, len,
            KEY_BYTES_MIN, KEY_BYTES_MAX);
    for (size_t i = 0; i < len; i++)
        if (key[i] <= ' ' || key[i] >= 127)
            return fault_set(fault, ERR_INVALID, "",
                "%s: a key holds a byte that no header can carry", source);
    if (set->n == KEYS_MAX)
        return fault_set(
            fault, ERR_INVALID, "", "%s: more than %d keys", source, KEYS_MAX);
    digest_key(auth, key, len, set->digest[set->n++]);
    keys->any = true;
    return OK;
}

static enum err
read_key_file(const struct auth *auth, struct keys *keys, enum scope scope,
    const char *path, struct fault *fault)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return fault_set(
            fault, ERR_INVALID, "", "key file %s cannot be read", path);
    if (S_ISREG(st.st_mode) && (st.st_mode & (S_IROTH | S_IWOTH)))
        return fault_set(fault, ERR_INVALID, "",
            "key file %s is open to every user of this machine; chmod o= it",
            path);
    struct buf text;
    buf_init(&text, 65536);
    enum err err = fsio_read(path, &text, fault);
    if (err != OK) {
        buf_release(&text);
        return fault_set(
            fault, ERR_INVALID, "", "key file %s cannot be read", path);
    }
    size_t found = 0;
    size_t at = 0;
    while (err == OK && at < text.len) {
        const char *line = text.data + at;
        size_t len = strcspn(line, "\n");
        at += len + 1;
        while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == ' '))
            len--;
        if (len == 0 || line[0] == '#')
            continue;
        found++;
        err = add_key(auth, keys, scope, line, len, path, fault);
    }
    if (err == OK && found == 0)
        err =
            fault_set(fault, ERR_INVALID, "", "key file %s holds no key", path);
    /* Keys do not linger on the heap. */
    if (text.data)
        memset(text.data, 0, text.len);
    buf_release(&text);
    return err;
}

static enum err
read_keys(const struct auth *auth, const struct config *config,
    struct keys *keys, struct fault *fault)
{
    const struct {
        enum scope scope;
        const char *file;
        const char *variable;
    } places[] = {
        {SCOPE_READ, config->key_read_file, "KINDRED_KEY_READ"},
        {SCOPE_WRITE, config->key_write_file, "KINDRED_KEY_WRITE"},
        {SCOPE_ADMIN, config->key_admin_file, "KINDRED_KEY_ADMIN"},
    };
    memset(keys, 0, sizeof(*keys));
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        enum err err = OK;
        if (places[i].file[0] != '\0')
            err = read_key_file(
                auth, keys, places[i].scope, places[i].file, fault);
        const char *value = getenv(places[i].variable);
        if (err == OK && value)
            err = add_key(auth, keys, places[i].scope, value, strlen(value),
                places[i].variable, fault);
        if (err != OK)
            return err;
    }
    return OK;
}

enum err
auth_new(struct auth **out, const struct config *config, struct fault *fault)
{
    struct auth *auth = mem_calloc(1, sizeof(*auth));
    if (!auth)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool random = fd >= 0 && read(fd, auth->salt, SALT_BYTES) == SALT_BYTES &&
                  read(fd, &auth->seed, sizeof(auth->seed)) ==
                      (ssize_t)sizeof(auth->seed);
    if (fd >= 0)
        (void)close(fd);
    if (!random) {
        mem_free(auth);
        return fault_set(fault, ERR_IO, "", "/dev/urandom cannot be read");
    }
    auth->failures_max = (unsigned)config->auth_failures_per_minute;
    enum err err = read_keys(auth, config, &auth->keys, fault);
    if (err != OK) {
        mem_free(auth);
        return err;
    }
    auth->enabled = auth->keys.any;
    pthread_mutex_init(&auth->lock, NULL);
    *out = auth;
    return OK;
}

void
auth_free(struct auth *auth)
{
    if (!auth)
        return;
    pthread_mutex_destroy(&auth->lock);
    mem_free(auth);
}

enum err
auth_reload(struct auth *auth, const struct config *config, struct fault *fault)
{
    struct keys fresh;
    enum err err = read_keys(auth, config, &fresh, fault);
    if (err != OK)
        return err;
    /* The loopback rule was decided with the keys of the start. */
    if (fresh.any != auth->enabled)
        return fault_set(fault, ERR_INVALID, "",
            "keys can be exchanged while running, not introduced or abolished");
    pthread_mutex_lock(&auth->lock);
    auth->keys = fresh;
    pthread_mutex_unlock(&auth->lock);
    return OK;
}

bool
auth_enabled(const struct auth *auth)
{
    return auth->enabled;
}

static uint64_t
hash_address(const struct auth *auth, const struct sockaddr *address)
{
    if (address && address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        return hash_bytes(&in.sin_addr, sizeof(in.sin_addr), auth->seed);
    }
    if (address && address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        return hash_bytes(&in6.sin6_addr, 8, auth->seed);
    }
    return auth->seed;
}

/* The caller holds the lock. A slot is shared by few addresses; the newcomer
   takes it over once its minute is past. */
static struct guesser *
guesser_of(struct auth *auth, uint64_t hash, int64_t now_ms)
{
    struct guesser *guesser = &auth->guessers[hash % GUESSERS];
    if (now_ms - guesser->window_ms >= 60000) {
        guesser->address_hash = hash;
        guesser->window_ms = now_ms;
        guesser->failures = 0;
    }
    return guesser;
}

static enum scope
scope_of(const struct keys *keys, const uint8_t digest[SHA256_BYTES])
{
    enum scope found = SCOPE_NONE;
    for (int s = SCOPE_READ; s <= SCOPE_ADMIN; s++)
        for (size_t k = 0; k < keys->sets[s].n; k++) {
            unsigned differs = 0;
            for (size_t b = 0; b < SHA256_BYTES; b++)
                differs |= (unsigned)(keys->sets[s].digest[k][b] ^ digest[b]);
            /* No branch on the secret: the mask is all ones when equal. */
            int equal = (int)(((differs - 1) >> 8) & 1);
            int take = equal * s;
            found = (enum scope)(take > (int)found ? take : (int)found);
        }
    return found;
}

enum auth_verdict
auth_check(struct auth *auth, const char *header, enum scope scope,
    const struct sockaddr *address, enum scope *granted)
{
    if (!auth->enabled) {
        *granted = SCOPE_ADMIN;
        return AUTH_GRANTED;
    }
    if (scope == SCOPE_NONE) {
        *granted = SCOPE_NONE;
        return AUTH_GRANTED;
    }
    const char *key = NULL;
    if (header && strncasecmp(header, "Bearer ", 7) == 0) {
        key = header + 7;
        while (*key == ' ')
            key++;
    }
    if (!key || *key == '\0')
        return AUTH_MISSING;
    size_t len = strlen(key);
    uint8_t digest[SHA256_BYTES];
    digest_key(
        auth, key, len > KEY_BYTES_MAX ? KEY_BYTES_MAX + 1 : len, digest);

    int64_t now_ms = clock_mono_ms();
    uint64_t hash = hash_address(auth, address);
    enum auth_verdict verdict = AUTH_GRANTED;
    pthread_mutex_lock(&auth->lock);
    struct guesser *guesser = guesser_of(auth, hash, now_ms);
    bool limited = guesser->address_hash == hash &&
                   guesser->failures >= auth->failures_max;
    enum scope found = limited ? SCOPE_NONE : scope_of(&auth->keys, digest);
    if (limited) {
        verdict = AUTH_LIMITED;
    } else if (found == SCOPE_NONE) {
        verdict = AUTH_MISSING;
        if (guesser->address_hash != hash) { /* two addresses, one slot */
            guesser->address_hash = hash;
            guesser->failures = 0;
        }
        guesser->failures++;
    } else if (found < scope) {
        verdict = AUTH_FORBIDDEN;
    }
    pthread_mutex_unlock(&auth->lock);
    if (verdict == AUTH_GRANTED)
        *granted = found;
    return verdict;
}
