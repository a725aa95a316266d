#include "server/config.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/version.h"

enum setting_type { SETTING_TEXT, SETTING_INT, SETTING_BOOL, SETTING_CHOICE };
enum source { SOURCE_BUILT_IN, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG };

struct setting {
    const char *name; /* with underscores, as in a file */
    enum setting_type type;
    size_t offset;
    const char *value; /* built in */
    long long min, max;
    const char *choices; /* "a|b" */
    const char *help;
};

#define AT(field) offsetof(struct config, field)
#define KIB 1024LL
#define MIB (1024LL * 1024)
#define HOUR_MS 3600000LL

static const struct setting settings[] = {
    {"listen", SETTING_TEXT, AT(listen), "127.0.0.1:8420", 0, 0, NULL,
        "address and port; port 0 takes a free one; an IPv6 address stands in "
        "brackets; without keys only a loopback address is accepted"},
    {"data", SETTING_TEXT, AT(data), "kindred-data", 0, 0, NULL,
        "data folder; made when absent; one daemon at a time"},
    {"port_file", SETTING_TEXT, AT(port_file), "", 0, 0, NULL,
        "write the port here, in decimal and a newline, once ready"},
    {"key_read_file", SETTING_TEXT, AT(key_read_file), "", 0, 0, NULL,
        "file of keys that may read, one a line"},
    {"key_write_file", SETTING_TEXT, AT(key_write_file), "", 0, 0, NULL,
        "file of keys that may read and write"},
    {"key_admin_file", SETTING_TEXT, AT(key_admin_file), "", 0, 0, NULL,
        "file of keys that may do everything"},
    {"encoder", SETTING_TEXT, AT(encoder), "", 0, 0, NULL,
        "published encoders to import at the start where the name is not "
        "there yet: NAME=FOLDER, with commas between several"},
    {"log_level", SETTING_CHOICE, AT(log_level), "info", 0, 0,
        "error|warn|info|debug", "what is logged; SIGHUP reads it again"},
    {"log_format", SETTING_CHOICE, AT(log_format), "text", 0, 0, "text|json",
        "how it is logged"},
    {"log_requests", SETTING_BOOL, AT(log_requests), "false", 0, 1, NULL,
        "log every request at level info; SIGHUP reads it again"},
    {"http_threads", SETTING_INT, AT(http_threads), "2", 1, 64, NULL,
        "event loops"},
    {"read_workers", SETTING_INT, AT(read_workers), "32", 1, 256, NULL,
        "threads that answer searches and reads"},
    {"write_workers", SETTING_INT, AT(write_workers), "8", 1, 256, NULL,
        "threads that answer writes, uploads and administration"},
    {"engine_threads", SETTING_INT, AT(engine_threads), "0", 0, 256, NULL,
        "threads that encode and scan; 0: one a processor"},
    {"tuner_threads", SETTING_INT, AT(tuner_threads), "0", 0, 256, NULL,
        "idle-priority threads that train; 0: one a processor"},
    {"queue_max", SETTING_INT, AT(queue_max), "1024", 1, 65536, NULL,
        "requests that wait for a worker of one kind; more get 503"},
    {"connections_max", SETTING_INT, AT(connections_max), "1024", 4, 65536,
        NULL, "open connections"},
    {"connections_per_address", SETTING_INT, AT(connections_per_address), "0",
        0, 65536, NULL,
        "open connections of one address; 0: no limit (behind a proxy)"},
    {"streams_max", SETTING_INT, AT(streams_max), "128", 1, 65536, NULL,
        "open event streams; more get 503"},
    {"body_bytes_max", SETTING_INT, AT(body_bytes_max), "8388608", KIB,
        1024 * MIB, NULL, "largest body that is not NDJSON; more gets 413"},
    {"body_memory_bytes", SETTING_INT, AT(body_memory_bytes), "50331648",
        64 * KIB, 65536 * MIB, NULL,
        "memory for all unfinished bodies, and pictures on their way out, "
        "together; beyond it 503"},
    {"line_bytes_max", SETTING_INT, AT(line_bytes_max), "16777216", KIB,
        1024 * MIB, NULL, "longest NDJSON line; a longer one is refused alone"},
    {"text_bytes_max", SETTING_INT, AT(text_bytes_max), "1048576", KIB,
        256 * MIB, NULL, "longest text of an item or a query"},
    {"image_bytes_max", SETTING_INT, AT(image_bytes_max), "33554432", KIB,
        256 * MIB, NULL,
        "largest picture file; more gets 413; it counts as a body, so never "
        "more than body_memory_bytes"},
    {"image_pixels_max", SETTING_INT, AT(image_pixels_max), "64000000", 1,
        1024 * MIB, NULL,
        "most pixels (width x height) of a picture; more gets 413 before it "
        "is decoded"},
    {"encoder_bytes_max", SETTING_INT, AT(encoder_bytes_max), "4294967296", KIB,
        1024 * 1024 * MIB, NULL,
        "largest folder of an encoder that is imported; more gets 413"},
    {"spool_memory_bytes", SETTING_INT, AT(spool_memory_bytes), "262144", 4096,
        1024 * MIB, NULL,
        "NDJSON outcomes kept in memory; more go to an unlinked file"},
    {"bulk_streams", SETTING_INT, AT(bulk_streams), "2", 1, 64, NULL,
        "NDJSON uploads taken in at once; others wait, unread"},
    {"impressions_max", SETTING_INT, AT(impressions_max), "10000", 1, 10000000,
        NULL, "answers remembered for feedback"},
    {"header_deadline_ms", SETTING_INT, AT(header_deadline_ms), "10000", 50,
        HOUR_MS, NULL, "from the connection to the end of its first header"},
    {"body_deadline_ms", SETTING_INT, AT(body_deadline_ms), "30000", 50,
        HOUR_MS, NULL,
        "from the header to the end of the body; for NDJSON: to the next KiB"},
    {"work_deadline_ms", SETTING_INT, AT(work_deadline_ms), "60000", 50,
        HOUR_MS, NULL, "from the end of the body to the answer; then 503"},
    {"keep_alive_ms", SETTING_INT, AT(keep_alive_ms), "75000", 1000, HOUR_MS,
        NULL, "how long an unused connection is kept"},
    {"event_keep_alive_ms", SETTING_INT, AT(event_keep_alive_ms), "15000", 50,
        HOUR_MS, NULL, "pause after which an event stream gets a comment"},
    {"drain_ms", SETTING_INT, AT(drain_ms), "10000", 0, HOUR_MS, NULL,
        "longest wait for running requests at SIGTERM"},
    {"auth_failures_per_minute", SETTING_INT, AT(auth_failures_per_minute),
        "30", 1, 1000000, NULL,
        "wrong keys of one address a minute; more get 429"},
};

#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

static const char *const source_names[] = {
    "built in", "file", "environment", "flag"};

/* Environment names that other parts read, and that are not settings. */
static const char *const foreign_names[] = {"KINDRED_CONFIG",
    "KINDRED_KEY_READ", "KINDRED_KEY_WRITE", "KINDRED_KEY_ADMIN", "KINDRED_KEY",
    "KINDRED_KEY_FILE", "KINDRED_COLLECTION", "KINDRED_URL", "KINDRED_BUILD",
    "KINDRED_TIER", "KINDRED_FAILPOINT", "KINDRED_CHECKPOINT_MS",
    "KINDRED_KERNELS", "KINDRED_KERNEL"};
static const char *const foreign_prefixes[] = {
    "KINDRED_TEST_", "KINDRED_BENCH_", "KINDRED_DEMO_", "KINDRED_CRASH_"};

static enum source sources[N_SETTINGS];
static char config_file[CONFIG_TEXT_MAX];

static const struct setting *
setting_find(const char *name)
{
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

static bool
choice_has(const char *choices, const char *value)
{
    size_t len = strlen(value);
    const char *at = choices;
    while (len > 0) {
        const char *bar = strchr(at, '|');
        size_t n = bar ? (size_t)(bar - at) : strlen(at);
        if (n == len && memcmp(at, value, n) == 0)
            return true;
        if (!bar)
            break;
        at = bar + 1;
    }
    return false;
}

static char *
text_at(struct config *config, const struct setting *setting)
{
    return (char *)config + setting->offset;
}

static long long *
int_at(struct config *config, const struct setting *setting)
{
    return (long long *)(void *)((char *)config + setting->offset);
}

/* where: how the setting was named, for the sentence. */
static enum err
setting_take(struct config *config, const struct setting *setting,
    const char *value, enum source source, const char *where,
    struct fault *fault)
{
    long long n = 0;
    char *end = NULL;
    switch (setting->type) {
    case SETTING_TEXT:
    case SETTING_CHOICE:
        if (strlen(value) >= CONFIG_TEXT_MAX)
            return fault_set(fault, ERR_INVALID, "",
                "%s: the value is longer than %d bytes", where,
                CONFIG_TEXT_MAX - 1);
        if (setting->type == SETTING_CHOICE &&
            !choice_has(setting->choices, value))
            return fault_set(fault, ERR_INVALID, "",
                "%s: \"%.40s\" is none of %s", where, value, setting->choices);
        memmove(text_at(config, setting), value, strlen(value) + 1);
        break;
    case SETTING_BOOL:
        if (strcmp(value, "true") == 0 || strcmp(value, "1") == 0)
            n = 1;
        else if (strcmp(value, "false") != 0 && strcmp(value, "0") != 0)
            return fault_set(fault, ERR_INVALID, "",
                "%s: \"%.40s\" is neither true nor false", where, value);
        *int_at(config, setting) = n;
        break;
    case SETTING_INT:
        errno = 0;
        n = strtoll(value, &end, 10);
        if (errno != 0 || end == value || *end != '\0')
            return fault_set(fault, ERR_INVALID, "",
                "%s: \"%.40s\" is not a whole number", where, value);
        if (n < setting->min || n > setting->max)
            return fault_set(fault, ERR_INVALID, "",
                "%s: %lld is not within %lld..%lld", where, n, setting->min,
                setting->max);
        *int_at(config, setting) = n;
        break;
    }
    sources[setting - settings] = source;
    return OK;
}

/* ---- file ---------------------------------------------------------------- */

struct file_reader {
    struct config *config;
    struct fault *fault;
    enum err err;
    const char *path;
};

static int
file_entry(void *user, const char *section, const char *name, const char *value)
{
    struct file_reader *reader = user;
    char where[CONFIG_TEXT_MAX + 128];
    (void)snprintf(where, sizeof(where), "%s: %s", reader->path, name);
    if (section[0] != '\0' && strcmp(section, "kindred") != 0) {
        reader->err = fault_set(reader->fault, ERR_INVALID, "",
            "%s: unknown section [%.40s]; settings stand before any section "
            "or in [kindred]",
            reader->path, section);
        return 0;
    }
    const struct setting *setting = setting_find(name);
    if (!setting) {
        reader->err = fault_set(reader->fault, ERR_INVALID, "",
            "%s: unknown setting \"%.60s\" (--help lists all)", reader->path,
            name);
        return 0;
    }
    reader->err = setting_take(reader->config, setting, value ? value : "",
        SOURCE_FILE, where, reader->fault);
    return reader->err == OK;
}

static enum err
read_file(struct config *config, const char *path, struct fault *fault)
{
    struct file_reader reader = {config, fault, OK, path};
    int line = ini_parse(path, file_entry, &reader);
    if (reader.err != OK)
        return reader.err;
    if (line < 0)
        return fault_set(fault, ERR_INVALID, "",
            "configuration file %s cannot be read", path);
    if (line > 0)
        return fault_set(fault, ERR_INVALID, "",
            "%s:%d is not \"name = value\"", path, line);
    return OK;
}

/* ---- environment --------------------------------------------------------- */

static bool
is_foreign(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(foreign_names); i++)
        if (strcmp(foreign_names[i], name) == 0)
            return true;
    for (size_t i = 0; i < ARRAY_LEN(foreign_prefixes); i++)
        if (strncmp(foreign_prefixes[i], name, strlen(foreign_prefixes[i])) ==
            0)
            return true;
    return false;
}

static enum err
read_environment(
    struct config *config, char *const *environ_, struct fault *fault)
{
    static const char prefix[] = "KINDRED_";
    for (size_t i = 0; environ_ && environ_[i]; i++) {
        const char *entry = environ_[i];
        const char *eq = strchr(entry, '=');
        if (!eq || strncmp(entry, prefix, sizeof(prefix) - 1) != 0)
            continue;
        char upper[64];
        char name[64];
        size_t len = (size_t)(eq - entry);
        if (len >= sizeof(upper))
            len = sizeof(upper) - 1;
        memcpy(upper, entry, len);
        upper[len] = '\0';
        if (is_foreign(upper))
            continue;
        size_t n = len - (sizeof(prefix) - 1);
        for (size_t c = 0; c < n; c++) {
            char letter = upper[c + sizeof(prefix) - 1];
            if (letter >= 'A' && letter <= 'Z')
                letter = (char)(letter - 'A' + 'a');
            name[c] = letter;
        }
        name[n] = '\0';
        const struct setting *setting = setting_find(name);
        if (!setting)
            return fault_set(fault, ERR_INVALID, "",
                "environment: unknown setting %s (--help lists all)", upper);
        enum err err = setting_take(
            config, setting, eq + 1, SOURCE_ENVIRONMENT, upper, fault);
        if (err != OK)
            return err;
    }
    return OK;
}

/* ---- flags --------------------------------------------------------------- */

static bool
take_action(const char *arg, enum config_action *action)
{
    static const struct {
        const char *flag;
        enum config_action action;
    } actions[] = {{"--help", CONFIG_HELP}, {"-h", CONFIG_HELP},
        {"--version", CONFIG_VERSION}, {"-V", CONFIG_VERSION},
        {"--print-config", CONFIG_PRINT}, {"--check-config", CONFIG_CHECK},
        {"--print-man", CONFIG_MAN}};
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(arg, actions[i].flag) == 0) {
            *action = actions[i].action;
            return true;
        }
    return false;
}

/*
 * Walk the command line. With config NULL only --config and the actions are
 * looked for, because the file is read before the flags are laid over it.
 */
static enum err
read_flags(struct config *config, int argc, char *const *argv,
    enum config_action *action, struct fault *fault)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (take_action(arg, action))
            continue;
        if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0')
            return fault_set(fault, ERR_INVALID, "",
                "unknown argument \"%.60s\" (--help lists all)", arg);
        char name[64];
        const char *eq = strchr(arg, '=');
        size_t len = eq ? (size_t)(eq - arg) - 2 : strlen(arg) - 2;
        if (len >= sizeof(name))
            len = sizeof(name) - 1;
        for (size_t c = 0; c < len; c++)
            name[c] = arg[c + 2];
        name[len] = '\0';
        /* A flag is spelt with dashes only: --log_level is a typing error. */
        bool dashed = strchr(name, '_') == NULL;
        for (size_t c = 0; c < len; c++)
            if (name[c] == '-')
                name[c] = '_';
        bool is_file = strcmp(name, "config") == 0;
        const struct setting *setting = setting_find(name);
        if (!dashed || (!setting && !is_file))
            return fault_set(fault, ERR_INVALID, "",
                "unknown flag \"%.60s\" (--help lists all)", arg);
        const char *value = eq ? eq + 1 : NULL;
        if (!value) {
            bool more = i + 1 < argc;
            if (setting && setting->type == SETTING_BOOL &&
                (!more || strncmp(argv[i + 1], "--", 2) == 0))
                value = "true";
            else if (!more)
                return fault_set(
                    fault, ERR_INVALID, "", "%s needs a value", arg);
            else
                value = argv[++i];
        }
        if (is_file) {
            if (strlen(value) >= sizeof(config_file))
                return fault_set(
                    fault, ERR_INVALID, "", "--config: the path is too long");
            if (!config)
                memcpy(config_file, value, strlen(value) + 1);
        } else if (config) {
            char where[80];
            (void)snprintf(where, sizeof(where), "--%.70s", arg + 2);
            char *cut = strchr(where, '=');
            if (cut)
                *cut = '\0';
            enum err err =
                setting_take(config, setting, value, SOURCE_FLAG, where, fault);
            if (err != OK)
                return err;
        }
    }
    return OK;
}

static const char *
environment_value(char *const *environ_, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; environ_ && environ_[i]; i++)
        if (strncmp(environ_[i], name, len) == 0 && environ_[i][len] == '=')
            return environ_[i] + len + 1;
    return NULL;
}

enum err
config_load(struct config *config, int argc, char *const *argv,
    char *const *environ_, enum config_action *action, struct fault *fault)
{
    memset(config, 0, sizeof(*config));
    *action = CONFIG_RUN;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        enum err err = setting_take(config, &settings[i], settings[i].value,
            SOURCE_BUILT_IN, settings[i].name, fault);
        ASSERT(err == OK);
    }
    config_file[0] = '\0';
    const char *path = environment_value(environ_, "KINDRED_CONFIG");
    if (path && strlen(path) < sizeof(config_file))
        memcpy(config_file, path, strlen(path) + 1);
    enum err err = read_flags(NULL, argc, argv, action, fault);
    if (err != OK || *action == CONFIG_HELP || *action == CONFIG_VERSION ||
        *action == CONFIG_MAN)
        return err;
    if (config_file[0] != '\0')
        err = read_file(config, config_file, fault);
    if (err == OK)
        err = read_environment(config, environ_, fault);
    if (err == OK)
        err = read_flags(config, argc, argv, action, fault);
    return err;
}

enum err
config_reload(struct config *config, int argc, char *const *argv,
    char *const *environ_, struct fault *fault)
{
    struct config *fresh = mem_calloc(1, sizeof(*fresh));
    if (!fresh)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    enum config_action action;
    enum err err = config_load(fresh, argc, argv, environ_, &action, fault);
    if (err == OK) {
        memcpy(config->log_level, fresh->log_level, sizeof(fresh->log_level));
        config->log_requests = fresh->log_requests;
    }
    mem_free(fresh);
    return err;
}

enum log_level
config_log_level(const struct config *config)
{
    switch (config->log_level[0]) {
    case 'e':
        return LOG_ERROR;
    case 'w':
        return LOG_WARN;
    case 'd':
        return LOG_DEBUG;
    default:
        return LOG_INFO;
    }
}

/* ---- printing ------------------------------------------------------------ */

static void
flag_name(char out[64], const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0' && i < 63; i++)
        out[i] = name[i] == '_' ? '-' : name[i];
    out[i] = '\0';
}

static const char usage_text[] =
    "usage: kindredd [--config FILE] [--SETTING VALUE]...\n"
    "\n"
    "Embedding-similarity search that learns from confirmed pairs.\n"
    "\n"
    "  --config FILE     read settings from FILE (name = value)\n"
    "  --check-config    check all settings and keys, start nothing\n"
    "  --print-config    print the settings as they would be used\n"
    "  --help, --version\n"
    "\n"
    "Settings. Each may be a flag, KINDRED_NAME in the environment, or a line\n"
    "\"name = value\" of the file; the first of these wins.\n";

static const char exit_text[] =
    "0 stopped as asked; 1 an unexpected failure; 2 a wrong setting, flag or "
    "key file; 3 the address cannot be used; 4 the data folder is in use by "
    "another daemon; 5 the data folder was made by a newer version; 6 the "
    "database is damaged; 7 the data folder cannot be read or written.";

static void
print_setting_help(FILE *out, const struct setting *s)
{
    char flag[64];
    flag_name(flag, s->name);
    (void)fprintf(out, "\n  --%s %s\n      %s\n      ", flag,
        s->type == SETTING_INT      ? "N"
        : s->type == SETTING_CHOICE ? s->choices
        : s->type == SETTING_BOOL   ? "true|false"
                                    : "TEXT",
        s->help);
    if (s->type == SETTING_INT)
        (void)fprintf(out, "%lld..%lld, ", s->min, s->max);
    (void)fprintf(
        out, "default %s\n", s->value[0] ? s->value : "(empty: none)");
}

void
config_print_help(FILE *out)
{
    (void)fputs(usage_text, out);
    for (size_t i = 0; i < N_SETTINGS; i++)
        print_setting_help(out, &settings[i]);
    (void)fprintf(out,
        "\nKeys may also stand in KINDRED_KEY_READ, KINDRED_KEY_WRITE and\n"
        "KINDRED_KEY_ADMIN. SIGTERM drains and exits, SIGHUP reads the keys\n"
        "and the log settings again.\n\nExit status: %s\n",
        exit_text);
}

void
config_print(const struct config *config, FILE *out)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &settings[i];
        const char *at = (const char *)config + s->offset;
        if (s->type == SETTING_TEXT || s->type == SETTING_CHOICE) {
            (void)fprintf(out, "%s = %s", s->name, at);
        } else {
            long long n;
            memcpy(&n, at, sizeof(n));
            if (s->type == SETTING_BOOL)
                (void)fprintf(out, "%s = %s", s->name, n ? "true" : "false");
            else
                (void)fprintf(out, "%s = %lld", s->name, n);
        }
        (void)fprintf(out, " ; %s\n", source_names[sources[i]]);
    }
}

void
config_print_man(FILE *out)
{
    (void)fprintf(out,
        ".TH KINDREDD 8 \"\" \"kindred %s\" \"System manager's manual\"\n"
        ".SH NAME\nkindredd \\- similarity search that learns\n"
        ".SH SYNOPSIS\n.B kindredd\n[\\-\\-config FILE] "
        "[\\-\\-SETTING VALUE]...\n"
        ".SH DESCRIPTION\n"
        "One daemon and one data folder: it stores items with their "
        "embeddings, answers what is similar, takes confirmed pairs, and "
        "retrains its encoder from them. It speaks HTTP and JSON;\n"
        ".B kindred (1)\nis its command line.\n"
        ".SH SETTINGS\nEach may be a flag, KINDRED_NAME in the environment, or "
        "a line \"name = value\" of the file that \\-\\-config names; the "
        "first of these wins.\n",
        KINDRED_VERSION);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &settings[i];
        char flag[64];
        flag_name(flag, s->name);
        (void)fprintf(out, ".TP\n.B \\-\\-%s\n%s", flag, s->help);
        if (s->type == SETTING_INT)
            (void)fprintf(out, " (%lld to %lld)", s->min, s->max);
        if (s->choices)
            (void)fprintf(out, " (%s)", s->choices);
        (void)fprintf(out, ". Default: %s.\n", s->value[0] ? s->value : "none");
    }
    (void)fprintf(out,
        ".SH ENVIRONMENT\n.TP\n.B KINDRED_KEY_READ, KINDRED_KEY_WRITE, "
        "KINDRED_KEY_ADMIN\nkeys, beside those of the files.\n"
        ".TP\n.B KINDRED_CONFIG\na configuration file, when \\-\\-config is "
        "not given.\n"
        ".SH SIGNALS\nSIGTERM and SIGINT: answer what is running, then exit. "
        "SIGHUP: read the keys, log_level and log_requests again.\n"
        ".SH EXIT STATUS\n%s\n.SH SEE ALSO\n.B kindred (1)\n",
        exit_text);
}
