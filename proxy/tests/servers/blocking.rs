//! Clients that wait at real servers.

use super::{Client, Server, eventually};

/// So many clients wait, as a server or the proxy says itself.
pub fn blocked(door: &Server, count: usize) {
    let mut client = door.connect();
    let said = |client: &mut Client| {
        let info = client.tell("INFO clients");
        let line = info.lines().find(|line| line.starts_with("blocked_clients:"));
        line.expect("it is said").trim().to_owned()
    };
    eventually(|| said(&mut client), &format!("blocked_clients:{count}"));
}

/// Steps parted by ` ; `: `a> X` is said and not answered yet, `a< ` is its answer, `a: X` is said and answered, `2 wait`
/// is how many wait at `counts` then. `clean` is said first. The answer to HELLO names the server and is not told.
pub fn play(script: &str, clean: &str, door: &Server, counts: &Server) -> String {
    let mut clients: [Client; 3] = std::array::from_fn(|_| door.connect());
    let mut heard = Vec::new();
    clients[0].tell(clean);
    for step in script.split(" ; ").map(str::trim) {
        let (who, said) = step.split_once([' ', '>', '<', ':']).unwrap_or((step, ""));
        if said.trim() == "wait" {
            blocked(counts, who.parse().expect("a number"));
            continue;
        }
        let client = &mut clients[usize::from(who.as_bytes()[0] - b'a')];
        if let Some(version) = said.trim().strip_prefix("HELLO ") {
            let reply = client.tell(&format!("HELLO {version}"));
            assert!(reply.starts_with(['*', '%']), "{reply}");
            continue;
        }
        if step.as_bytes()[1] != b'<' {
            client.begin(said.trim());
        }
        if step.as_bytes()[1] != b'>' {
            heard.push(String::from_utf8_lossy(&client.reply()).replace("\r\n", " "));
        }
    }
    heard.join("| ")
}

/// They are on all of three shards; in scripts they are called k0 to k9.
pub const ALL: &str = "0key 1key 2key 3key 4key 5key 6key 7key 8key 9key";

/// What clients say that wait under several keys, a conversation in a line: see [`play`].
const ON_SEVERAL: &str = "
    a: BLPOP ALL 0.01
    a: BZPOPMIN ALL 0.01
    a: BLMPOP 0.01 10 ALL LEFT
    a: BZMPOP 0.01 10 ALL MAX COUNT 2
    a: HELLO 3 ; a: BLPOP ALL 0.01 ; a: BZPOPMAX ALL 0.01
    a: BLPOP ALL -1
    a: BLPOP ALL x
    a: BLMPOP x 10 ALL UP
    a: BLMPOP x 10 ALL LEFT COUNT 0
    a: BLMPOP x 10 ALL LEFT COUNT 1 2
    a: BLMPOP x 10 ALL LEFT
    a: BZMPOP x 10 ALL LEFT
    a: SET k5 v ; a: BLPOP ALL 0.01 ; a: BZPOPMIN ALL 0.01
    a: RPUSH k5 1 2 3 ; a: RPUSH k4 4 5 ; a: BLPOP ALL 0 ; a: BRPOP ALL 0 ; a: BLPOP ALL 0 ; a: BLMPOP 0 10 ALL LEFT COUNT 5 ; a: BLPOP ALL 0.01
    a: ZADD k7 1.5 a 2 b 3 c ; a: BZPOPMIN ALL 0 ; a: BZPOPMAX ALL 0 ; a: BZMPOP 0 10 ALL MIN ; a: EXISTS k7
    a: HELLO 3 ; a: ZADD k7 1.5 a 2 b 3 c ; a: BZPOPMIN ALL 0 ; a: BZPOPMAX ALL 0 ; a: BZMPOP 0 10 ALL MIN ; a: EXISTS k7
    a> BLPOP ALL 0 ; 1 wait ; b: RPUSH k0 x y ; a< ; b: LRANGE k0 0 -1
    a> BLPOP ALL 0 ; 1 wait ; b> BLPOP ALL 0 ; 2 wait ; c: RPUSH k6 1 2 ; a< ; b<
    a> BLPOP ALL 0 ; a> GET k3 ; 1 wait ; b: RPUSH k4 x ; a< ; a<
    a> BZPOPMIN ALL 0 ; 1 wait ; b: ZADD k9 1 x 2 y ; a< ; b: ZCARD k9
    a> BLPOP ALL 0 ; 1 wait ; b: EVAL redis.call('RPUSH',KEYS[1],'x')redis.call('DEL',KEYS[1]) 1 k2 ; b: RPUSH k2 y ; a<
    a> BLPOP ALL 0 ; 1 wait ; b: EVAL return(redis.call('RPUSH',KEYS[1],'x')) 1 k2 ; a<
    a: SELECT 3 ; a> BLPOP ALL 0 ; 1 wait ; b: RPUSH k1 x ; b: SELECT 3 ; b: RPUSH k1 y ; a<
    a: XADD k1 1-1 f v ; a: XADD k4 2-1 f w ; a: XREAD BLOCK 0 STREAMS k0 k1 k4 0 0 0 ; a: XREAD COUNT 1 BLOCK 10 STREAMS k0 k1 k4 0 1-1 2-1
    a: HELLO 3 ; a: XADD k1 1-1 f v ; a: XADD k4 2-1 f w ; a: XREAD COUNT 1 BLOCK 0 STREAMS k0 k1 k4 0 0 0 ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 0 1-1 2-1
    a: XADD k1 1-1 f v ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 $ $ $ ; a: SET k4 v ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 0 1-1 0
    a: XADD k1 1-1 f v ; a> XREAD BLOCK 0 STREAMS k0 k1 k4 0 1-1 0 ; 1 wait ; b: XADD k4 5-1 f v ; a<
    a: XREAD BLOCK -1 STREAMS k0 k1 k4 0 0 0 ; a: XREAD BLOCK x STREAMS k0 k1 k4 0 0 0
    a: XREADGROUP GROUP g c BLOCK 0 STREAMS k0 k1 k4 > > >
    a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a: XADD k4 2-1 f w ; a: XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 > > ; a: XREADGROUP GROUP g c BLOCK 10 STREAMS k1 k4 > > ; a: XPENDING k4 g
    a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a> XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 > > ; 1 wait ; b: XADD k1 3-1 f v ; a< ; b: XPENDING k1 g
    a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a: XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 0 >
    a: MULTI ; a: RPUSH k1 x ; a: BLPOP k1 k1 0 ; a: EXEC
    a: CLIENT REPLY SKIP ; a> BLPOP ALL 0.01 ; a: PING x
";

/// Conversations of clients that wait on several shards are played at the proxy and at one server, those that are `meant`. Where it matters
/// who came first that is a proxy with one worker.
pub fn like_one_server(ours: &Server, in_order: &Server, meant: impl Fn(&str) -> bool) {
    let theirs = Server::redis(&[]);
    let mut differences = Vec::new();
    let lines = ON_SEVERAL.lines().map(str::trim).filter(|line| !line.is_empty() && meant(line));
    for line in lines {
        let mut script = line.replace("a: CLIENT REPLY SKIP", "a> CLIENT REPLY SKIP");
        for key in 0..10 {
            script = script.replace(&format!("k{key}"), &format!("{key}key"));
        }
        let script = script.replace("ALL", ALL);
        let without = |heard: String| {
            let parts = heard.split(" $2 id ");
            let plain =
                |part: &str| part.trim_start_matches(|sign: char| ":0123456789".contains(sign)).to_owned();
            parts.map(plain).collect::<String>()
        };
        let ours = if script.contains("b> BLPOP") { in_order } else { ours };
        let heard = [ours, &theirs].map(|door| play(&script, &format!("DEL {ALL}"), door, door));
        let [our, their] = heard.map(without);
        if our != their {
            differences.push(format!("{script}\n  ours   {our}\n  theirs {their}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
