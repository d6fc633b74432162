//! What changes nothing, which clients and tools send before they work: over one shard and over several.

use crate::{Pair, as_of_the_model};

const HARMLESS: &str = "
    UNWATCH
    DISCARD
    EXEC
    UNSUBSCRIBE
    UNSUBSCRIBE a b
    PUNSUBSCRIBE
    PUNSUBSCRIBE a
    SUNSUBSCRIBE
    SUNSUBSCRIBE a
    HELLO 3 ; UNSUBSCRIBE
    PUBSUB
    PUBSUB nosuch
    PUBSUB CHANNELS
    PUBSUB NUMPAT
    PUBSUB NUMSUB
    PUBSUB NUMSUB a
    PUBSUB SHARDCHANNELS
    PUBSUB SHARDNUMSUB
    PUBSUB SHARDNUMSUB a
    CLIENT TRACKING OFF
    CLIENT TRACKING x
    HELLO 3 ; CLIENT TRACKING OFF
    CLIENT GETREDIR
    CLIENT TRACKINGINFO
    HELLO 3 ; CLIENT TRACKINGINFO
    CLIENT CACHING YES
    CLIENT CACHING x
    CLIENT UNPAUSE
    CLIENT UNPAUSE x
    CLIENT NO-EVICT ON
    CLIENT NO-EVICT OFF
    CLIENT NO-EVICT
    CLIENT GETNAME
    CLIENT GETNAME x
    CLIENT SETNAME
    CLIENT UNBLOCK 999999
    CLIENT UNBLOCK x
    ASKING
    WAIT 0 0
    WAIT 0 1
    SLOWLOG LEN x
    ECHO
    ACL
    ACL nosuch
    ACL WHOAMI
    ACL WHOAMI x
    ACL USERS
    ACL USERS x
    ACL LIST
    ACL LIST x
    ACL GETUSER
    ACL GETUSER default
    ACL GETUSER DEFAULT
    ACL GETUSER nosuch
    ACL GETUSER default x
    HELLO 3 ; ACL GETUSER default
    HELLO 3 ; ACL GETUSER nosuch
    ACL CAT
    ACL CAT nosuch
    ACL CAT @string
    ACL CAT a b
    ACL cat a b
    ACL GENPASS 0
    ACL GENPASS x
    ACL GENPASS 4097
    ACL GENPASS 1 2
    MULTI ; ACL WHOAMI ; ACL USERS ; ACL GETUSER default ; ACL CAT nosuch ; EXEC
    MULTI ; UNWATCH ; CLIENT GETNAME ; CLIENT NO-EVICT ON ; CLIENT NO-EVICT x ; CLIENT UNPAUSE ; ASKING ; EXEC
";

#[test]
fn what_is_harmless_is_answered_over_one_shard() {
    Pair::start(&[], &[]).check(HARMLESS);
}

#[test]
fn what_is_harmless_is_answered_over_several_shards() {
    Pair::over(3, &[], &[]).check(HARMLESS);
}

/// A password of as many bits as are wanted, another one each time.
#[test]
fn passwords_are_made_as_the_server_makes_them() {
    for shards in [1, 2] {
        let pair = Pair::over(shards, &[], &[]);
        let (mut ours, mut theirs) = pair.clients();
        for request in ["ACL GENPASS", "ACL GENPASS 5", "ACL GENPASS 4096"] {
            let replies = [ours.say(request), ours.say(request), theirs.say(request)];
            let [our, next, their] = replies.each_ref().map(|reply| {
                let (_, password) = reply.split_once(r"\r\n").expect("a bulk string");
                password.trim_end_matches(r"\r\n")
            });
            assert!(our.bytes().all(|digit| digit.is_ascii_hexdigit()), "{our}");
            assert_eq!(our.len(), their.len(), "{request}");
            assert!(our != next || our.len() < 8, "{request}");
        }
    }
}

/// The server tells a digest of the password, from which a short one can be found; ours does not.
#[test]
fn the_password_is_not_shown() {
    let pair = Pair::start(&["redis_auth: secret"], &["--requirepass", "secret"]);
    pair.check("ACL WHOAMI ; AUTH secret ; ACL WHOAMI ; ACL USERS ; ACL GETUSER nosuch");
    let (mut ours, mut theirs) = pair.clients();
    for client in [&mut ours, &mut theirs] {
        client.say("AUTH secret");
    }
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let (our, their) = (ours.say("ACL LIST"), theirs.say("ACL LIST"));
    assert!(their.contains(digest), "{their}");
    assert_eq!(our, r"*1\r\n$27\r\nuser default on ~* &* +@all\r\n");
    let (our, their) = (ours.say("ACL GETUSER default"), theirs.say("ACL GETUSER default"));
    assert!(their.contains(digest), "{their}");
    let shown = format!(r"*1\r\n$64\r\n{digest}\r\n");
    assert_eq!(our, as_of_the_model(&their).replace(&shown, r"*0\r\n"));
}

/// Every command of a category that the proxy does is in that of the server.
#[test]
fn categories_hold_what_the_server_has_in_them() {
    let pair = Pair::over(2, &[], &[]);
    let (mut ours, mut theirs) = pair.clients();
    for category in ["string", "STRING", "hash", "connection", "transaction", "pubsub"] {
        let request = format!("ACL CAT {category}");
        let [our, their] = [ours.say(&request), theirs.say(&request)].map(|reply| {
            let words = reply.split(r"\r\n").filter(|word| !word.is_empty() && !word.starts_with(['*', '$']));
            words.map(str::to_owned).collect::<Vec<_>>()
        });
        // Those that came later do not count against it.
        let later = our.iter().filter(|name| !their.contains(name)).count();
        assert!(our.len() > 4 && later <= 2, "{category}: {our:?} {their:?}");
    }
}
