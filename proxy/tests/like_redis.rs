//! What the proxy answers itself, compared with the words of the server that is installed: clients compare texts,
//! count fields and close connections for less than a missing dot.
//!
//! Left out, because ours is meant to differ: READONLY and READWRITE (+OK, so that clients which always send them can
//! stay), NUL in inline commands (Redis reads a C string there and waits for ever), bytes that are no UTF-8 in texts of
//! errors, and numbers so long that Redis waits for their end before it says that they are wrong.

use servers::{Client, Server, encoded, eventually, shown};

mod like_redis {
    mod caching;
    mod connections;
    mod harmless;
}
mod servers;

/// A proxy over servers, and a server like them.
struct Pair {
    ours: Server,
    theirs: Server,
    _shards: Vec<Server>,
}

impl Pair {
    fn start(ours: &[&str], theirs: &[&str]) -> Self {
        Self::over(1, ours, theirs)
    }

    fn over(shards: usize, ours: &[&str], theirs: &[&str]) -> Self {
        let shards: Vec<_> = (0..shards).map(|_| Server::redis(theirs)).collect();
        let pair =
            Self { ours: Server::memstore(ours, &shards), theirs: Server::redis(theirs), _shards: shards };
        // The first client does not wait for long until the shards have said what they are.
        let (mut ours, mut theirs) = pair.clients();
        eventually(|| ours.say("CONFIG GET maxmemory-policy"), &theirs.say("CONFIG GET maxmemory-policy"));
        pair
    }

    fn clients(&self) -> (Client, Client) {
        (self.ours.connect(), self.theirs.connect())
    }

    /// Every line is a conversation of its own: requests parted by ` ; `, each answered alike.
    fn check(&self, conversations: &str) {
        let lines = conversations.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut differences = Vec::new();
        for line in lines {
            let (mut ours, mut theirs) = self.clients();
            // What follows may differ as well, and is still said.
            let mut is_otherwise = false;
            for request in line.split(" ; ") {
                let [our, their] =
                    [ours.say(request), theirs.say(request)].map(|reply| without_the_id(&reply));
                is_otherwise |= our != their && is_said_otherwise(request, &our, &their);
                if our != their && !is_otherwise {
                    differences.push(format!("{line}\n  at     {request}\n  ours   {our}\n  theirs {their}"));
                    break;
                }
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// Bytes as they are, after which the server closes the connection, or our side does.
    fn check_bytes(&self, inputs: &[&[u8]]) {
        let mut differences = Vec::new();
        // It ends by an assertion of its own.
        let dies_of = |input: &[u8]| {
            [&b"*0\r\n"[..], b"*-1\r\n"]
                .iter()
                .any(|empty| input.windows(empty.len()).any(|part| part == *empty))
                && Server::redis_program_said("--version").contains("Valkey server v=9.0.0 ")
        };
        for input in inputs.iter().filter(|input| !dies_of(input)) {
            let answers = [self.ours.connect(), self.theirs.connect()].map(|mut client| {
                client.send(input);
                without_the_id(&shown(&client.rest()))
            });
            if answers[0] != answers[1] && !is_said_otherwise(&shown(input), &answers[0], &answers[1]) {
                let beginning = shown(&input[..input.len().min(200)]);
                differences.push(format!("{beginning}\n  ours   {}\n  theirs {}", answers[0], answers[1]));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn answers_of_the_proxys_own() {
    Pair::start(&[], &[]).check(
        "
        PING
        ping
        PING hello
        PING a b
        HELLO 3 ; PING
        ECHO x
        ECHO
        ECHO a b
        TIME x
        SELECT 0
        SELECT 15
        SELECT 16
        SELECT -1
        SELECT x
        SELECT 01
        SELECT 99999999999999999999
        SELECT 4294967296
        SELECT
        SELECT 1 2
        SELECT 1 ; SET k 1 ; SELECT 0 ; EXISTS k ; SELECT 1 ; GET k ; DEL k
        AUTH x
        AUTH default x
        AUTH nosuch x
        AUTH
        AUTH a b c
        QUIT
        QUIT now
        RESET
        RESET now
        CLIENT SETNAME me ; RESET ; CLIENT GETNAME
        SELECT 3 ; SET reset 1 ; RESET ; EXISTS reset ; SELECT 3 ; DEL reset
        HELLO 3 ; RESET ; GET nosuch
        ASKING
        CLUSTER INFO
        CLUSTER NODES
        CLUSTER SLOTS
        CLUSTER nosuch
        CLUSTER
        ROLE
        ROLE x
        COMMAND COUNT x
        COMMAND INFO get set
        COMMAND DOCS nosuch
        COMMAND nosuch
        COMMAND GETKEYS set a b
        COMMAND GETKEYS
        COMMAND INFO dbsize flushall publish
        CONFIG GET databases
        CONFIG GET nosuch
        CONFIG GET DATABASES
        CONFIG GET
        CONFIG nosuch
        CONFIG
        HELLO 3 ; CONFIG GET databases
        HELLO 3 ; CONFIG GET nosuch
        CONFIG GET save
        CONFIG GET timeout
        CONFIG GET maxmemory-policy
        CONFIG GET maxmemory
        CONFIG GET maxmemory-polic?
        CONFIG GET proto-max-bulk-len
        CONFIG GET notify-keyspace-events
        CONFIG GET cluster-enabled
        INFO nosuch
        HELLO 3 ; INFO nosuch
        ",
    );
}

/// The server answers several parameters in an order of its own, another one in each process.
#[test]
fn config_get_of_several_parameters() {
    let pair = Pair::start(&[], &[]);
    let (mut ours, mut theirs) = pair.clients();
    for request in ["CONFIG GET save appendonly", "CONFIG GET databases SAVE timeout nosuch"] {
        let [our, their] = [ours.say(request), theirs.say(request)].map(|reply| {
            let mut lines: Vec<_> = reply.split(r"\r\n").map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_eq!(our, their, "{request}");
    }
}

#[test]
fn unknown_and_misshapen_commands() {
    Pair::start(&[], &[]).check(
        "
        NOSUCH
        NOSUCH a b c
        nosuch a
        NoSuch \u{7}
        GET
        GET a b
        get a b
        SET
        SET a
        MGET
        MSET
        MSET a
        MSET a 1 b
        DEL
        EXISTS
        TOUCH
        HGET a
        EVAL
        EVAL x
        EVAL x 1
        EVAL x y a
        EVAL x -1 a
        EVALSHA x -1
        EVALSHA x y
        EVALSHA x 2 a
        EVALSHA ffffffffffffffffffffffffffffffffffffffff -1
        FCALL f -1
        FCALL f x
        FCALL f 2 a
        FCALL_RO f -1 a
        ZUNION 2 a
        ZUNION 0 a
        OBJECT
        OBJECT nosuch
        OBJECT nosuch x
        OBJECT ENCODING
        OBJECT encoding a b
        CLIENT
        CLIENT nosuch
        CLIENT nosuch x
        CLIENT id x
        CLIENT setname
        XGROUP
        XGROUP nosuch x
        XGROUP CREATE x
        XINFO
        MEMORY USAGE
        MEMORY nosuch
        GET k ; NOSUCH ; GET k
        ",
    );
    let pair = Pair::start(&[], &[]);
    let (mut ours, mut theirs) = pair.clients();
    let long = [b'x'; 300];
    for request in [
        &[&long[..]][..],
        &[b"nosuch", &long],
        &[b"nosuch", &long[..100], &long[..100], b"y"],
        &[b"nosuch", &long[..127], b"y", b"z"],
        &[b"nosuch", &long[..128], b"y"],
        &[b"nosuch", b"a\r\nb", b"y"],
        &[b"no\r\nsuch", b"y"],
        &[b"no\nsuch"],
        &[b"", b"x"],
        &[b"get "],
        &[b"object", &long],
        &[b"object", b"a\r\nb"],
        &[b"select", b""],
        &[b"select", b"+1"],
        &[b"select", b" 1"],
        &[b"hello", b""],
        &[b"client", b"setname", b""],
        &[b"client", b"setname", b"a b"],
        &[b"client", b"setname", b"a\nb"],
        &[b"client", b"setname", b"\xff"],
        &[b"client", b"setname", &[b'x'; 1024]],
        &[b"client", b"setname", &[b'x'; 65_536]],
        &[b"hello", b"2", b"setname", &[b'x'; 5000]],
        &[b"client", b"getname"],
    ] {
        let what = shown(&encoded(request));
        let [our, their] =
            [ours.ask(request), theirs.ask(request)].map(|reply| without_the_id(&shown(&reply)));
        assert_eq!(our, their, "{what:.200}");
    }
}

#[test]
fn client_subcommands() {
    Pair::start(&[], &[]).check(
        "
        CLIENT GETNAME
        HELLO 3 ; CLIENT GETNAME
        CLIENT SETNAME me ; CLIENT GETNAME
        CLIENT SETNAME me ; HELLO 3 ; CLIENT GETNAME
        CLIENT ID x
        CLIENT INFO x
        CLIENT LIST TYPE nosuch
        CLIENT LIST TYPE
        CLIENT LIST nosuch
        CLIENT LIST ID
        CLIENT LIST ID x
        CLIENT LIST ID 0
        CLIENT LIST ID -1
        CLIENT LIST ID 999999
        CLIENT LIST ID 999999 x
        CLIENT LIST TYPE master
        CLIENT LIST TYPE pubsub
        CLIENT LIST TYPE normal x
        HELLO 3 ; CLIENT LIST ID 999999
        CLIENT KILL
        CLIENT KILL nosuch
        CLIENT KILL 127.0.0.1:1
        CLIENT KILL ID x
        CLIENT KILL ID 0
        CLIENT KILL ID -5
        CLIENT KILL ID 999999
        CLIENT KILL ID 999999 ADDR 127.0.0.1:1
        CLIENT KILL ID
        CLIENT KILL ADDR 127.0.0.1:1
        CLIENT KILL LADDR 127.0.0.1:1
        CLIENT KILL TYPE nosuch
        CLIENT KILL TYPE master
        CLIENT KILL TYPE pubsub SKIPME yes
        CLIENT KILL USER nosuch
        CLIENT KILL SKIPME nosuch
        CLIENT KILL nosuch x
        CLIENT KILL ID 1 nosuch
        CLIENT KILL ID 1 nosuch x
        CLIENT REPLY
        CLIENT REPLY nosuch
        CLIENT REPLY ON
        CLIENT REPLY on x
        CLIENT NO-EVICT on
        CLIENT NO-EVICT off
        CLIENT NO-EVICT x
        CLIENT NO-EVICT
        CLIENT SETNAME a b
        ",
    );
}

#[test]
fn a_client_that_wants_no_replies() {
    let pair = Pair::start(&[], &[]);
    for script in [
        "CLIENT REPLY OFF ; PING ; SET k 1 ; GET k ; NOSUCH ; MGET a b ; CLIENT REPLY ON ; GET k",
        "CLIENT REPLY SKIP ; PING ; PING hello",
        "CLIENT REPLY SKIP ; SET k 2 ; GET k",
        "CLIENT REPLY SKIP ; NOSUCH ; PING",
        "CLIENT REPLY SKIP ; CLIENT REPLY SKIP ; PING ; PING hello",
        "CLIENT REPLY OFF ; CLIENT REPLY SKIP ; PING ; PING ; CLIENT REPLY ON ; PING hello",
        "CLIENT REPLY SKIP ; CLIENT REPLY OFF ; PING ; CLIENT REPLY ON ; PING hello",
        "CLIENT REPLY SKIP ; CLIENT REPLY ON ; PING hello",
        "CLIENT REPLY OFF ; CLIENT REPLY nosuch ; CLIENT REPLY ON ; PING hello",
        "CLIENT REPLY OFF ; RESET ; PING hello",
        "CLIENT REPLY SKIP ; RESET ; PING hello",
        "CLIENT REPLY SKIP ; MSET a 1 b 2 ; MGET a b ; CLIENT REPLY SKIP ; DEL a b ; PING hello",
        "CLIENT REPLY SKIP ; HELLO 3 ; GET nosuch",
        "CLIENT REPLY SKIP ; SELECT 2 ; PING hello",
        "CLIENT REPLY SKIP ; CLIENT LIST ; PING hello",
        "CLIENT REPLY OFF ; CLIENT INFO ; CLIENT REPLY ON ; PING hello",
        "CLIENT REPLY OFF ; QUIT",
        "CLIENT REPLY SKIP ; QUIT",
    ] {
        let (mut ours, mut theirs) = pair.clients();
        let answers = [&mut ours, &mut theirs].map(|client| {
            for request in script.split(" ; ") {
                client.send(&encoded(&request.split(' ').map(str::as_bytes).collect::<Vec<_>>()));
            }
            shown(&client.rest())
        });
        assert_eq!(answers[0], answers[1], "{script}");
    }
}

#[test]
fn a_reply_that_is_not_wanted_and_an_empty_request() {
    Pair::start(&[], &[]).check_bytes(&[
        b"CLIENT REPLY SKIP\r\n\r\nPING\r\n",
        b"CLIENT REPLY SKIP\r\n*0\r\nPING\r\n",
        b"CLIENT REPLY SKIP\r\n*-1\r\nPING\r\nPING a\r\n",
        b"CLIENT REPLY SKIP\r\n\r\n\r\nPING\r\n",
        b"CLIENT REPLY OFF\r\n\r\nPING\r\nCLIENT REPLY ON\r\n",
    ]);
}

#[test]
fn events_of_keys_are_set_as_the_server_sets_them() {
    Pair::start(&[], &[]).check(
        "
        CONFIG SET
        CONFIG SET notify-keyspace-events
        CONFIG SET notify-keyspace-events QQ
        CONFIG SET notify-keyspace-events K notify-keyspace-events E
        CONFIG SET notify-keyspace-events Egx ; CONFIG GET notify-keyspace-events ; CONFIG GET notify*
        CONFIG SET NOTIFY-KEYSPACE-EVENTS Egx$K ; CONFIG GET notify-keyspace-events ; HELLO 3 ; CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events KEA ; CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events AKEm ; CONFIG GET notify-keyspace-events
        ",
    );
}

/// With one shard there is nothing to join.
#[test]
fn what_concerns_all_shards_concerns_the_only_one() {
    let pair = Pair::start(&[], &[]);
    pair.check(
        "
        SET k 1 ; DBSIZE ; KEYS * ; SCAN 0 ; RANDOMKEY ; FLUSHDB ; DBSIZE ; RANDOMKEY
        SCAN 0 MATCH x* COUNT 100 TYPE string
        SCAN x
        SCAN
        KEYS
        HELLO 3 ; SET k 1 ; SCAN 0 ; RANDOMKEY ; DEL k
        SELECT 3 ; SET a 1 ; SELECT 4 ; SET b 1 ; KEYS * ; FLUSHDB ASYNC ; SELECT 3 ; DBSIZE ; FLUSHALL ; DBSIZE
        SCRIPT LOAD return(7) ; EVALSHA bc70ae583496ef68242126e5f723b4224435af02 0 ; SCRIPT EXISTS nosuch ; SCRIPT FLUSH
        SCRIPT EXISTS
        SCRIPT KILL
        SCRIPT nosuch
        FUNCTION LIST
        FUNCTION STATS
        FUNCTION LOAD nosuch
        FUNCTION DELETE nosuch
        FUNCTION DUMP
        FUNCTION FLUSH
        FUNCTION RESTORE nosuch
        RPUSH l 3 1 2 ; MSET w_1 9 w_2 8 w_3 7 ; SORT l BY w_* GET # GET w_* ; SORT_RO l BY w_* ; SORT l BY w_* STORE s ; FLUSHALL
        PUBLISH c x
        SPUBLISH c x
        PFADD hll a ; PFDEBUG ENCODING hll ; PFDEBUG TODENSE hll ; PFDEBUG ENCODING nosuch
        SWAPDB 0 0 ; SWAPDB 0 1 ; SWAPDB 0 1 ; SWAPDB 0 99 ; SWAPDB x 0 ; SWAPDB 0
        PUBSUB CHANNELS
        PUBSUB NUMSUB a
        PUBSUB NUMPAT
        LATENCY LATEST
        LATENCY RESET
        LATENCY HISTOGRAM nosuch
        MEMORY DOCTOR
        SLOWLOG RESET
        SLOWLOG nosuch
        BGSAVE x ; SAVE x
        WAIT 0 0 ; WAIT -1 0 ; WAIT 1 1 ; WAIT 1 ; WAIT x -1 ; WAIT 1 x ; WAIT 1 -1 ; MULTI ; WAIT 1 0 ; WAIT x 0 ; EXEC
        EVAL return(7) 0
        ",
    );
    // Still not: these need a connection of their own, or change it for everybody.
    let mut client = pair.ours.connect();
    for request in ["MONITOR", "CONFIG SET timeout 1", "CONFIG REWRITE"] {
        let mut client = pair.ours.connect();
        let reply = client.tell(request);
        assert!(reply.starts_with("-ERR '") || reply.contains(" is refused: "), "{request}: {reply}");
    }
    assert_eq!(client.tell("CONFIG GET timeout"), "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n");
}

#[test]
fn transactions() {
    Pair::start(&[], &[]).check(
        "
        MULTI ; EXEC
        MULTI ; SAVE ; EXEC
        MULTI ; SHUTDOWN ; GET a ; EXEC
        MULTI x
        EXEC
        EXEC x
        EXEC x ; EXEC
        DISCARD
        DISCARD x
        UNWATCH
        UNWATCH x
        MULTI ; SET a 1 ; GET a ; DEL a ; EXEC ; EXEC
        multi ; set a 1 ; exec ; get a ; del a
        MULTI ; SET a 1 ; DISCARD ; GET a ; EXEC
        MULTI ; SET a 1 ; DISCARD ; DISCARD
        MULTI ; MULTI ; SET a 2 ; EXEC ; DEL a
        MULTI ; MULTI x ; SET a 2 ; EXEC ; GET a
        MULTI ; WATCH a ; SET a 2 ; EXEC ; DEL a
        MULTI ; WATCH ; SET a 2 ; EXEC ; GET a
        MULTI ; nosuch x ; SET a 2 ; EXEC ; GET a
        MULTI ; SET a ; SET a 2 ; EXEC ; GET a
        MULTI ; CLIENT nosuch ; EXEC
        MULTI ; CLIENT ; EXEC
        MULTI ; SET a 2 ; EXEC x ; EXEC ; GET a
        MULTI ; SET a 2 ; DISCARD x ; EXEC ; GET a
        MULTI ; UNWATCH ; UNWATCH x ; EXEC
        MULTI ; UNWATCH ; PING ; PING x ; PING x y ; ECHO z ; EXEC
        MULTI ; PING ; GET a ; ECHO x ; CLIENT GETNAME ; CLIENT SETNAME me ; CLIENT GETNAME ; EXEC ; CLIENT GETNAME
        MULTI ; LPUSH l 1 ; INCR l ; SET l ; EXEC ; LRANGE l 0 -1
        MULTI ; LPUSH l 1 ; INCR l ; LRANGE l 0 -1 ; DEL l ; EXEC
        MULTI ; MSET a 1 b ; EVAL x ; EVAL x x ; ZUNION 0 a ; ZUNION x a ; SINTERCARD 1 ; EXEC
        MULTI ; BLPOP nosuch 0 ; BLMOVE a b LEFT LEFT 0 ; XREAD BLOCK 0 STREAMS nosuch $ ; BLPOP a x ; EXEC
        MULTI ; WAIT 0 0 ; EXEC
        MULTI ; DEL a b c ; MGET a b c ; EXISTS a b ; EXEC
        MULTI ; RESET ; EXEC
        MULTI ; QUIT
        HELLO 3 ; MULTI ; HGETALL nosuch ; GET nosuch ; BLPOP nosuch 0 ; CLIENT GETNAME ; EXEC
        HELLO 3 ; MULTI ; ZADD z 1.5 a ; ZSCORE z a ; DEL z ; EXEC ; EXEC
        ",
    );
}

#[test]
fn keys_that_are_watched() {
    Pair::start(&[], &[]).check(
        "
        WATCH
        WATCH a
        WATCH a b a ; UNWATCH ; UNWATCH
        WATCH a ; MULTI ; SET a 1 ; EXEC ; EXEC ; GET a ; DEL a
        WATCH a ; SET a 1 ; MULTI ; SET a 2 ; EXEC ; GET a ; DEL a
        WATCH a ; GET a ; SET b 1 ; MULTI ; SET a 2 ; MGET a b ; EXEC ; DEL a b
        WATCH a ; WATCH b ; SET b 1 ; MULTI ; GET a ; EXEC ; DEL b
        WATCH a ; SET a 1 ; WATCH b ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; UNWATCH ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; DISCARD ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; EXEC ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; DISCARD ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; UNWATCH ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; EXEC ; DEL a
        WATCH a ; MULTI ; EXEC
        WATCH a ; MULTI ; PING ; EXEC
        WATCH a ; SET a 1 ; MULTI ; PING ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; PING ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; nosuch x ; EXEC ; MULTI ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; GET a ; EXEC x ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; GET a ; DISCARD x ; EXEC ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; MULTI ; WATCH b ; WATCH ; EXEC ; DEL a
        WATCH a ; SET a 1 ; RESET ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; SET a 1 ; FLUSHALL ; MULTI ; GET a ; EXEC
        WATCH a ; FLUSHALL ; MULTI ; GET a ; EXEC
        WATCH a ; SELECT 0 ; HELLO 2 ; SET a 1 ; MULTI ; GET a ; EXEC ; DEL a
        WATCH l ; RPUSH l x ; BLPOP l 0 ; MULTI ; LLEN l ; EXEC
        WATCH m ; BLPOP l 0.01 ; MULTI ; LLEN l ; EXEC
        WATCH a ; MULTI ; BLPOP a 0 ; BLMOVE a b LEFT LEFT 0 ; EXEC
        WATCH a ; MULTI ; LPUSH a 1 ; INCR a ; EXEC ; DEL a
        WATCH a ; SUBSCRIBE c ; SET a 1 ; UNSUBSCRIBE c ; MULTI ; GET a ; EXEC
        WATCH a ; SET a 1 ; SUBSCRIBE c ; UNSUBSCRIBE c ; MULTI ; GET a ; EXEC ; DEL a
        WATCH a ; QUIT
        HELLO 3 ; WATCH a ; SET a 1 ; MULTI ; GET a ; EXEC ; DEL a
        HELLO 3 ; WATCH a ; MULTI ; HGETALL nosuch ; PING ; EXEC
        SELECT 3 ; WATCH a ; SET a 1 ; MULTI ; GET a ; EXEC ; DEL a
        ",
    );
}

/// A client in between, and databases: the key of another one is another key.
#[test]
fn keys_that_others_change_while_they_are_watched() {
    let pair = Pair::start(&[], &[]);
    for (watched, change) in [
        ("a", "SET a 2"),
        ("a", "DEL a"),
        ("a", "EXPIRE a 100"),
        ("a", "RENAME a b"),
        ("a", "GET a"),
        ("a", "SET b 2"),
        ("b", "COPY a b"),
        ("b", "SETNX b 1"),
        ("a", "SETNX a 1"),
        ("a b", "APPEND b x"),
        ("a", "FLUSHALL"),
        ("a", "SELECT 1 ; SET a 2"),
        ("a", "EVAL redis.call('SET','a','3') 1 a"),
        ("a", "MULTI ; GET a ; EXEC"),
        ("a", "MULTI ; INCR a ; EXEC"),
    ] {
        let said = [&pair.ours, &pair.theirs].map(|server| {
            let [mut client, mut other] = [server.connect(), server.connect()];
            other.say("FLUSHALL");
            other.say("SET a 1");
            client.say(&format!("WATCH {watched}"));
            change.split(" ; ").for_each(|request| {
                other.say(request);
            });
            ["MULTI", "GET a", "PING", "EXEC", "GET a"].map(|request| client.say(request))
        });
        assert_eq!(said[0], said[1], "{change}");
    }
}

/// HELLO names the same things in the same order; id and version are the proxy's own.
#[test]
fn hello_in_both_versions_and_its_errors() {
    let pair = Pair::start(&[], &[]);
    pair.check(
        "
        HELLO 1
        HELLO 4
        HELLO x
        HELLO 03
        HELLO 99999999999999999999
        HELLO 2 nosuch
        HELLO 3 AUTH
        HELLO 3 AUTH default
        HELLO 3 AUTH default x SETNAME
        HELLO 3 AUTH nosuch x
        HELLO 3 AUTH nosuch x ; GET nosuch
        HELLO 3 SETNAME
        HELLO 3 SETNAME a b
        HELLO 3 nosuch x
        HELLO AUTH default x
        HELLO 5 AUTH nosuch x
        HELLO 3 nosuch ; GET nosuch
        ",
    );
    let bad_name = [&b"HELLO"[..], b"3", b"SETNAME", b"a b"];
    let (mut ours, mut theirs) = pair.clients();
    assert_eq!(shown(&ours.ask(&bad_name)), shown(&theirs.ask(&bad_name)));
    for script in [
        "HELLO",
        "HELLO 2",
        "HELLO 3",
        "HELLO 3 ; HELLO",
        "HELLO 3 ; HELLO 2",
        "HELLO 3 AUTH default anything",
        "HELLO 3 SETNAME me",
        "HELLO 3 AUTH default anything SETNAME me",
        "HELLO 2 SETNAME me AUTH default anything",
    ] {
        let (mut ours, mut theirs) = pair.clients();
        for request in script.split(" ; ") {
            let same = [ours.say(request), theirs.say(request)].map(|reply| without_the_id(&reply));
            assert_eq!(same[0], same[1], "{script}");
        }
        assert_eq!(ours.say("CLIENT GETNAME"), theirs.say("CLIENT GETNAME"), "{script}");
        assert_eq!(ours.say("HGETALL nosuch"), theirs.say("HGETALL nosuch"), "{script}");
    }
}

/// A reply without what differs from server to server: the number behind the word `id` in HELLO's reply, the server's name,
/// version and modules there, and what later versions say in other words.
fn without_the_id(reply: &str) -> String {
    let reply = reply.replace("HELLO <proto> AUTH", "HELLO AUTH");
    let reply = reply.replace(r", with args beginning with: \r\n", r"\r\n");
    let reply = as_of_the_model(&reply);
    let Some((before, after)) = reply.split_once(r"$2\r\nid\r\n:") else { return reply };
    let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let (head, before) = before.split_once(r"$6\r\nserver\r\n").expect("HELLO tells the server");
    let (_, before) = before.split_once(r"$5\r\nproto\r\n").expect("HELLO tells the protocol");
    let (rest, _) = rest.split_once(r"$7\r\nmodules\r\n").expect("HELLO tells the modules");
    format!("{head}proto {before}id N{rest}modules")
}

/// A reply without what later servers tell of the default user.
fn as_of_the_model(reply: &str) -> String {
    let flag = r"$16\r\nsanitize-payload\r\n";
    let mut reply =
        reply.replace(r"$51\r\nuser default on nopass sanitize-payload ", r"$34\r\nuser default on nopass ");
    for before in [r"$2\r\non\r\n$6\r\nnopass\r\n", r"$2\r\non\r\n"] {
        let count = before.matches('$').count();
        for kind in ['*', '~'] {
            let with = format!(r"{kind}{}\r\n{before}{flag}", count + 1);
            reply = reply.replace(&with, &format!(r"{kind}{count}\r\n{before}"));
        }
    }
    let databases = r"$9\r\ndatabases\r\n$6\r\nalldbs\r\n";
    if reply.contains(databases) {
        reply = reply.replace(databases, "").replace(r"*14\r\n$5\r\nflags", r"*12\r\n$5\r\nflags");
        reply = reply.replace(r"%7\r\n$5\r\nflags", r"%6\r\n$5\r\nflags");
    }
    reply
}

/// What later servers answer otherwise than Redis 7.0, whose words ours has: beginnings of request, our reply and theirs.
const OTHERWISE: &[(&str, &str, &str)] = &[
    // Valkey from 9.0 on asks for the password before it looks at a request.
    ("", "-ERR ", "-NOAUTH Authentication required."),
    // Valkey, where EXEC is refused then.
    ("MULTI", "-ERR MULTI calls can not be nested", "-ERR Command "),
    ("WATCH", "-ERR WATCH inside MULTI is not allowed", "-ERR Command "),
    // Valkey 8.0, but not those after it.
    ("UNSUBSCRIBE", "*3", "-NOSUB "),
    ("PUNSUBSCRIBE", "*3", "-NOSUB "),
    ("SUNSUBSCRIBE", "*3", "-NOSUB "),
    ("UNSUBSCRIBE", ">3", "-NOSUB "),
    // Valkey from 8.1 on.
    ("CLIENT LIST ID", "-ERR Invalid client ID", "-ERR syntax error"),
    ("CLIENT LIST ID", "$0", "-ERR client-id should be greater than 0"),
    ("CLIENT KILL ID", "-ERR client-id should be greater than 0", "-ERR syntax error"),
    (r"ECHO \x01\xff", "$2", "$1"),
    // Valkey 9.1 takes quotes that end within a word.
    (r#"ECHO \"a\"b"#, "-ERR Protocol error: unbalanced quotes", "$2"),
    (r"ECHO \'a\'b", "-ERR Protocol error: unbalanced quotes", "$2"),
    // Redis 8.0 counts an empty request as the one that is skipped, but not 7.0, nor 8.6.
    ("CLIENT REPLY SKIP", "+PONG", ""),
    ("CLIENT REPLY SKIP", r"+PONG\r\n$1\r\na", "$1"),
];

fn is_said_otherwise(request: &str, ours: &str, theirs: &str) -> bool {
    let is_the_model = Server::redis_program_said("--version").contains("Redis server v=7.0.");
    !is_the_model
        && OTHERWISE.iter().any(|(beginning, our, their)| {
            request.starts_with(beginning) && ours.starts_with(our) && theirs.starts_with(their)
        })
}
