//! Commands that are forwarded, each with arguments that make it succeed, in an order that makes sense.

/// One request a line; `@a` to `@e` stand for keys of one shard.
pub const CONVERSATION: &str = "
    SET string hello
    GET string
    get missing
    APPEND string !
    STRLEN string
    GETRANGE string 0 2
    SETRANGE string 1 E
    GETSET string again
    SET number 5
    INCR number
    DECR number
    INCRBY number 10
    DECRBY number 3
    INCRBYFLOAT number 0.5
    INCR number
    INCR string
    SETNX string x
    SETNX other x
    SET string x NX
    SET string x XX GET
    SET string x nosuch
    SETEX fleeting 1000000 v
    PSETEX fleeting 1000000499 v
    TTL fleeting
    PERSIST fleeting
    TTL fleeting
    TTL missing
    PTTL fleeting
    PTTL missing
    EXPIRE fleeting 1000000
    PEXPIRE fleeting 1000000000
    EXPIREAT fleeting 99999999999
    PEXPIREAT fleeting 99999999999000
    PTTL missing
    EXPIRE missing 5
    EXPIRE fleeting x
    GETEX fleeting PERSIST
    GETDEL fleeting
    GETDEL fleeting
    TYPE string
    TYPE missing
    EXISTS string
    EXISTS string string
    SETBIT bits 7 1
    GETBIT bits 7
    BITCOUNT bits
    BITPOS bits 1
    BITFIELD bits GET u4 0 INCRBY u4 4 1
    BITFIELD bits
    COPY @a @b
    SET @a 1
    COPY @a @b
    COPY @a @b REPLACE
    DUMP @a
    DUMP missing
    RESTORE restored 0 nonsense
    RESTORE restored 0 \u{0}
    HSET hash f v g w
    HGET hash f
    HGET hash missing
    HMSET hash h x
    HMGET hash f missing g
    HGETALL hash
    HKEYS hash
    HVALS hash
    HLEN hash
    HEXISTS hash f
    HSTRLEN hash f
    HSETNX hash f x
    HINCRBY hash n 3
    HINCRBYFLOAT hash n 0.25
    HINCRBY hash f 1
    HDEL hash f g h
    HRANDFIELD hash
    HRANDFIELD hash 5 WITHVALUES
    HSCAN hash 0
    HSCAN hash x
    HGETALL missing
    GET hash
    RPUSH list a b c
    LPUSH list z
    LPUSHX list y
    RPUSHX list d
    RPUSHX missing d
    LRANGE list 0 -1
    LLEN list
    LINDEX list 0
    LINSERT list BEFORE b aa
    LSET list 0 first
    LSET list 99 x
    LREM list 1 aa
    LPOS list c
    LTRIM list 0 4
    LPOP list
    RPOP list 2
    LPOP missing 2
    RPUSH @c 1 2 3
    RPOPLPUSH @c @d
    LMOVE @c @d LEFT RIGHT
    LRANGE @d 0 -1
    SADD one x
    SADD one x
    SMEMBERS one
    SCARD one
    SISMEMBER one x
    SMISMEMBER one x y
    SRANDMEMBER one
    SRANDMEMBER one -3
    SSCAN one 0 COUNT 10
    SPOP one
    SPOP one
    SADD @a x
    DEL @a
    SADD @a 1 2 3
    DEL @b
    SADD @b 2 3 4
    SINTER @a @b
    SUNION @a @b
    SDIFF @a @b
    SINTERSTORE @e @a @b
    SUNIONSTORE @e @a @b
    SDIFFSTORE @e @a @b
    SMOVE @a @b 1
    SREM @b 4
    SREM @b 9
    SORT @b DESC
    SORT @b STORE @e
    ZADD zset 1 a 2 b 3 c
    ZADD zset GT CH 5 a
    ZADD zset x a
    ZSCORE zset a
    ZSCORE zset missing
    ZMSCORE zset a missing
    ZCARD zset
    ZCOUNT zset -inf 3
    ZLEXCOUNT zset - +
    ZINCRBY zset 1.5 b
    ZRANK zset a
    ZREVRANK zset a
    ZRANK zset missing
    ZRANGE zset 0 -1 WITHSCORES
    ZREVRANGE zset 0 -1
    ZRANGEBYSCORE zset (1 +inf LIMIT 0 2
    ZREVRANGEBYSCORE zset +inf -inf
    ZRANGEBYLEX zset - +
    ZREVRANGEBYLEX zset + -
    ZSCAN zset 0
    ZRANDMEMBER missing
    ZADD single 1 a
    ZRANDMEMBER single
    ZRANDMEMBER single -2 WITHSCORES
    ZPOPMAX single
    ZPOPMIN single
    ZREM zset a
    ZREMRANGEBYLEX zset [x [z
    ZREMRANGEBYRANK zset 5 6
    ZREMRANGEBYSCORE zset 100 200
    DEL @a @b @c @d @e
    ZADD @a 1 x 2 y
    ZADD @b 3 y 4 z
    ZUNIONSTORE @c 2 @a @b WEIGHTS 2 1
    ZINTERSTORE @d 2 @a @b
    ZDIFFSTORE @e 2 @a @b
    ZRANGESTORE @e @c 0 -1
    ZRANGE @e 0 -1 WITHSCORES
    PFADD visitors a b c
    PFCOUNT visitors
    DEL @a @b @c
    PFADD @a x y
    PFADD @b y z
    PFMERGE @c @a @b
    PFCOUNT @a @b
    GEOADD places 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
    GEODIST places Palermo Catania km
    GEOHASH places Palermo missing
    GEOPOS places Palermo missing
    GEORADIUS places 15 37 200 km WITHDIST ASC
    GEORADIUSBYMEMBER places Palermo 200 km ASC
    GEOSEARCH places FROMMEMBER Palermo BYRADIUS 200 km ASC
    GEOADD @d 13.361389 38.115556 Palermo
    DEL @d
    GEOADD @d 13.361389 38.115556 Palermo
    GEOSEARCHSTORE @e @d FROMMEMBER Palermo BYRADIUS 200 km
    EVAL return{KEYS[1],ARGV[1],#KEYS} 1 scripted argument
    EVAL return{KEYS[1],KEYS[2]} 2 @a @b
    EVAL return{1,false,{2,'three'},redis.status_reply('fine')} 1 scripted
    EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 scripted 7
    EVAL return(redis.error_reply('MY_error_text')) 1 scripted
    EVAL this_is_no_lua 1 scripted
    EVALSHA 0000000000000000000000000000000000000000 1 scripted
    EVAL return(1) 1 hash
    EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 1 hash
    MSET k1 1 k2 2 k3 3 k4 4 k5 5 k6 6
    MGET k1 k2 k3 k4 k5 k6 missing
    MGET k6 k6 k1 missing k6
    MGET hash k1 list
    MGET k1
    MSET k1 one
    MSET k1 a k1 b k2 c k1 d
    MGET k1 k2
    TOUCH k1 k2 missing k1
    TOUCH k1
    DEL k1 k2 k1 missing
    UNLINK k3 k4 k3
    UNLINK k5
    DEL k6
    DEL k6
    PING
    ping
    SET k
    ZADD k
    HSET hash odd
    LPUSH string x
";
