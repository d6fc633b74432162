/* hiredis with its defaults: it sends nothing on its own. What other languages' clients are made of. */
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

#if HIREDIS_MAJOR < 1
/* It knows RESP2 alone; main() leaves the other out. */
#define REDIS_REPLY_MAP (-1)
#define REDIS_REPLY_SET (-1)
#define REDIS_REPLY_DOUBLE (-1)
#define REDIS_REPLY_VERB (-1)
#endif

#define KEYS 300
#define PIPELINE 1000

static const char *variable(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "%s is not set\n", name);
        exit(1);
    }
    return value;
}

static redisContext *connect_to(const char *port) {
    redisContext *connection = redisConnect(variable("MEMSTORE_HOST"), atoi(variable(port)));
    CHECK(connection && !connection->err);
    return connection;
}

static bool is_text(redisReply *reply, int type, const char *text) {
    bool same = reply && reply->type == type && reply->len == strlen(text) && !memcmp(reply->str, text, reply->len);
    if (!same && reply && reply->str) fprintf(stderr, "reply: %s\n", reply->str);
    freeReplyObject(reply);
    return same;
}

static bool is_ok(redisReply *reply) { return is_text(reply, REDIS_REPLY_STATUS, "OK"); }

static bool is_number(redisReply *reply, long long number) {
    bool same = reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == number;
    freeReplyObject(reply);
    return same;
}

static bool is_error(redisReply *reply, const char *beginning) {
    bool same = reply && reply->type == REDIS_REPLY_ERROR && !strncmp(reply->str, beginning, strlen(beginning));
    if (!same && reply && reply->str) fprintf(stderr, "reply: %s\n", reply->str);
    freeReplyObject(reply);
    return same;
}

/* One command with all keys, and between them values if asked for. */
static redisReply *with_all_keys(redisContext *connection, const char *command, bool values) {
    const char *words[1 + 2 * KEYS] = {command};
    char keys[KEYS][32];
    int count = 1;
    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "hiredis:%d", i);
        words[count++] = keys[i];
        if (values) words[count++] = keys[i];
    }
    return redisCommandArgv(connection, count, words, NULL);
}

static void keys_of_all_shards(redisContext *connection) {
    CHECK(is_ok(with_all_keys(connection, "MSET", true)));
    redisReply *reply = with_all_keys(connection, "MGET", false);
    CHECK(reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == KEYS);
    for (int i = 0; i < KEYS; i++) {
        char key[32];
        snprintf(key, sizeof key, "hiredis:%d", i);
        CHECK(!strcmp(reply->element[i]->str, key));
    }
    freeReplyObject(reply);
    CHECK(is_number(with_all_keys(connection, "EXISTS", false), KEYS));
    for (int i = 0; i < KEYS; i++) CHECK(is_number(redisCommand(connection, "STRLEN hiredis:%d", i), i < 10 ? 9 : i < 100 ? 10 : 11));
}

static void types(redisContext *connection, bool resp3) {
    freeReplyObject(redisCommand(connection, "DEL hash list zset set"));
    CHECK(is_number(redisCommand(connection, "HSET hash f v"), 1));
    redisReply *reply = redisCommand(connection, "HGETALL hash");
    CHECK(reply && reply->type == (resp3 ? REDIS_REPLY_MAP : REDIS_REPLY_ARRAY) && reply->elements == 2);
    freeReplyObject(reply);
    CHECK(is_number(redisCommand(connection, "SADD set x"), 1));
    reply = redisCommand(connection, "SMEMBERS set");
    CHECK(reply && reply->type == (resp3 ? REDIS_REPLY_SET : REDIS_REPLY_ARRAY) && reply->elements == 1);
    freeReplyObject(reply);
    CHECK(is_number(redisCommand(connection, "ZADD zset 1.5 a"), 1));
    CHECK(is_text(redisCommand(connection, "ZSCORE zset a"), resp3 ? REDIS_REPLY_DOUBLE : REDIS_REPLY_STRING, "1.5"));
    CHECK(is_number(redisCommand(connection, "RPUSH list a b"), 2));
    CHECK(is_text(redisCommand(connection, "LINDEX list -1"), REDIS_REPLY_STRING, "b"));
    CHECK(is_ok(redisCommand(connection, "SET fleeting v EX 100")));
    CHECK(is_number(redisCommand(connection, "PERSIST fleeting"), 1));
    reply = redisCommand(connection, "GET missing");
    CHECK(reply && reply->type == REDIS_REPLY_NIL);
    freeReplyObject(reply);
    reply = redisCommand(connection, "EVAL %s 1 k a", "return {KEYS[1], ARGV[1], 7}");
    CHECK(reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && reply->element[2]->integer == 7);
    freeReplyObject(reply);
    CHECK(is_error(redisCommand(connection, "LPUSH fleeting x"), "WRONGTYPE "));
    CHECK(is_error(redisCommand(connection, "NOSUCH"), "ERR unknown command 'NOSUCH'"));
    reply = redisCommand(connection, "INFO server");
    CHECK(reply && reply->type == (resp3 ? REDIS_REPLY_VERB : REDIS_REPLY_STRING) && strstr(reply->str, "redis_mode:standalone"));
    freeReplyObject(reply);
}

static void any_byte_is_kept(redisContext *connection) {
    char bytes[256];
    for (int i = 0; i < 256; i++) bytes[i] = (char)i;
    CHECK(is_ok(redisCommand(connection, "SET %b %b", bytes, sizeof bytes, bytes, sizeof bytes)));
    redisReply *reply = redisCommand(connection, "GET %b", bytes, sizeof bytes);
    CHECK(reply && reply->len == sizeof bytes && !memcmp(reply->str, bytes, sizeof bytes));
    freeReplyObject(reply);
}

static void a_thousand_in_one_pipeline(redisContext *connection) {
    for (int i = 0; i < PIPELINE; i++) {
        CHECK(redisAppendCommand(connection, i % 2 ? "GET pipe:%d" : "SET pipe:%d x", i / 2) == REDIS_OK);
    }
    for (int i = 0; i < PIPELINE; i++) {
        redisReply *reply;
        CHECK(redisGetReply(connection, (void **)&reply) == REDIS_OK);
        CHECK(i % 2 ? is_text(reply, REDIS_REPLY_STRING, "x") : is_ok(reply));
    }
}

static void databases(redisContext *connection) {
    CHECK(is_ok(redisCommand(connection, "SELECT 4")));
    CHECK(is_ok(redisCommand(connection, "SET %s v", "only there")));
    CHECK(is_ok(redisCommand(connection, "SELECT 0")));
    CHECK(is_number(redisCommand(connection, "EXISTS %s", "only there"), 0));
}

static void passwords(void) {
    const char *password = variable("MEMSTORE_PASSWORD");
    redisContext *connection = connect_to("MEMSTORE_AUTH_PORT");
    CHECK(is_error(redisCommand(connection, "GET k"), "NOAUTH "));
    CHECK(is_error(redisCommand(connection, "AUTH wrong"), "WRONGPASS "));
    CHECK(is_error(redisCommand(connection, "AUTH nosuch %s", password), "WRONGPASS "));
    CHECK(is_ok(redisCommand(connection, "AUTH %s", password)));
    CHECK(is_ok(redisCommand(connection, "AUTH default %s", password)));
    for (int i = 0; i < 30; i++) CHECK(is_ok(redisCommand(connection, "SET auth:%d x", i)));
    redisFree(connection);
}

int main(void) {
    redisContext *connection = connect_to("MEMSTORE_PORT");
    keys_of_all_shards(connection);
    types(connection, false);
    any_byte_is_kept(connection);
    a_thousand_in_one_pipeline(connection);
    databases(connection);
    if (HIREDIS_MAJOR >= 1) {
        redisReply *hello = redisCommand(connection, "HELLO 3");
        CHECK(hello && hello->type == REDIS_REPLY_MAP);
        freeReplyObject(hello);
        types(connection, true);
        any_byte_is_kept(connection);
        a_thousand_in_one_pipeline(connection);
    }
    redisFree(connection);
    passwords();
    return 0;
}
