//! redis-rs with its defaults: CLIENT SETINFO twice before anything else, and in RESP3 HELLO 3.

use std::collections::HashMap;

use memstore_client_tests::{binary, port, variable};
use redis::{Client, Commands, Connection, Pipeline, RedisResult, Value};

fn connect(more: &str) -> Connection {
    let address = format!("redis://{}:{}/{more}", variable("MEMSTORE_HOST"), port("MEMSTORE_PORT"));
    Client::open(address).expect("an address").get_connection().expect("a connection")
}

fn in_both_versions(test: impl Fn(&mut Connection)) {
    for more in ["", "?protocol=resp3"] {
        test(&mut connect(more));
    }
}

#[test]
fn keys_of_all_shards() {
    in_both_versions(|client| {
        let keys: Vec<_> = (0..300).map(|number| format!("redis-rs:{number}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key, format!("{key}!"))).collect();
        let () = client.mset(&pairs).expect("OK");
        let values: Vec<String> = client.mget(&keys).expect("values");
        assert!(values.iter().zip(&pairs).all(|(value, (_, expected))| value == expected));
        assert_eq!(client.exists(&keys), Ok(300));
        assert_eq!(client.del(&keys[..200]), Ok(200));
        assert_eq!(client.get("missing"), Ok(None::<String>));
    });
}

#[test]
fn types() {
    in_both_versions(|client| {
        let () = client.del(&["hash", "list", "zset", "set"]).expect("a number");
        let () = client.hset_multiple("hash", &[("f", "v"), ("n", "1")]).expect("OK");
        let hash: HashMap<String, String> = client.hgetall("hash").expect("a map");
        assert_eq!(hash, [("f", "v"), ("n", "1")].map(|(field, value)| (field.into(), value.into())).into());
        assert_eq!(client.rpush("list", &["a", "b"]), Ok(2));
        assert_eq!(client.lrange("list", 0, -1), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(client.zadd_multiple("zset", &[(1.0, "a"), (2.5, "b")]), Ok(2));
        let scores: Vec<(String, f64)> = client.zrange_withscores("zset", 0, -1).expect("pairs");
        assert_eq!(scores, [("a".into(), 1.0), ("b".into(), 2.5)]);
        assert_eq!(client.sadd("set", "x"), Ok(1));
        assert_eq!(client.smembers("set"), Ok(vec!["x".to_owned()]));
        let () = client.set_ex("fleeting", "v", 100).expect("OK");
        assert!(matches!(client.ttl("fleeting"), Ok(1..=100)));
        let () = client.set(binary(), binary()).expect("OK");
        assert_eq!(client.get(binary()), Ok(binary()));
    });
}

/// EVALSHA comes first, and SCRIPT LOAD when it is answered by NOSCRIPT.
#[test]
fn scripts_by_eval() {
    in_both_versions(|client| {
        let reply: (String, String, i64) = redis::cmd("EVAL")
            .arg("return {KEYS[1], ARGV[1], 7}")
            .arg(1)
            .arg("k")
            .arg("a")
            .query(client)
            .expect("three values");
        assert_eq!(reply, ("k".into(), "a".into(), 7));
    });
}

#[test]
fn a_thousand_in_one_pipeline() {
    in_both_versions(|client| {
        let mut pipeline = Pipeline::new();
        for number in 0..500 {
            pipeline.set(format!("pipe:{number}"), number).ignore();
        }
        for number in 0..500 {
            pipeline.get(format!("pipe:{number}"));
        }
        let values: Vec<i64> = pipeline.query(client).expect("values");
        assert_eq!(values, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn transactions() {
    in_both_versions(|client| {
        let () = client.del("{tx}untouched").expect("a number");
        let mut together = redis::pipe();
        together.atomic().set("{tx}touched", 1).ignore().incr("{tx}touched", 1).get("{tx}untouched");
        assert_eq!(together.query(client), Ok((2, None::<String>)));
        let mut spread = redis::pipe();
        spread.atomic().set("{tx}untouched", 1);
        (0..20).for_each(|number| {
            spread.set(format!("tx:{number}"), number);
        });
        let reply: RedisResult<Value> = spread.query(client);
        let error = reply.expect_err("it is refused").to_string();
        assert!(error.contains("CROSSSLOT") || error.to_uppercase().contains("CROSS"), "{error}");
        assert_eq!(client.get("{tx}untouched"), Ok(None::<String>));
    });
}

#[test]
fn keys_that_are_watched() {
    in_both_versions(|client| {
        let key = "{watch}redis-rs";
        let () = client.set(key, 1).expect("it is set");
        let mut times = 0;
        let (value,): (i64,) = redis::transaction(client, &[key], |client, together| {
            times += 1;
            let value: i64 = client.get(key)?;
            if times == 1 {
                // Its own change counts as well.
                let () = client.set(key, 5)?;
            }
            together.set(key, value + 1).ignore().get(key).query(client)
        })
        .expect("the second time nothing changes");
        assert_eq!((times, value), (2, 6));
    });
}

#[test]
fn the_connection_itself() {
    in_both_versions(|client| {
        assert_eq!(redis::cmd("PING").query(client), Ok("PONG".to_owned()));
        let info: redis::InfoDict = redis::cmd("INFO").query(client).expect("INFO");
        assert_eq!(info.get::<String>("redis_mode").as_deref(), Some("standalone"));
        let own: String = redis::cmd("CLIENT").arg("INFO").query(client).expect("a line");
        assert!(own.contains("lib-name=redis-rs"), "{own}");
        let unknown: RedisResult<Value> = redis::cmd("NOSUCH").query(client);
        assert!(unknown.expect_err("it is unknown").to_string().contains("unknown command"));
        assert_eq!(redis::cmd("ECHO").arg("still there").query(client), Ok("still there".to_owned()));
    });
}

#[test]
fn databases() {
    let mut fourth = connect("4");
    let () = fourth.set("only there", "v").expect("OK");
    assert_eq!(fourth.get("only there"), Ok(Some("v".to_owned())));
    assert_eq!(connect("").get("only there"), Ok(None::<String>));
}

#[test]
fn passwords() {
    for protocol in ["", "?protocol=resp3"] {
        let open = |user: &str, password: &str| {
            let place = format!("{}:{}", variable("MEMSTORE_HOST"), port("MEMSTORE_AUTH_PORT"));
            let password: String = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let client = Client::open(format!("redis://{user}:{password}@{place}/{protocol}"));
            client.expect("an address").get_connection()
        };
        let password = variable("MEMSTORE_PASSWORD");
        for user in ["", "default"] {
            let mut client = open(user, &password).expect("it is right");
            let () = client.set("k", "v").expect("OK");
        }
        assert!(open("", "wrong").is_err());
        assert!(open("nosuch", &password).is_err());
    }
}

#[tokio::test]
async fn many_tasks_share_one_connection() {
    use redis::AsyncCommands;
    let address = format!("redis://{}:{}/?protocol=resp3", variable("MEMSTORE_HOST"), port("MEMSTORE_PORT"));
    let client = Client::open(address).expect("an address");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let tasks = (0..200).map(|number| {
        let mut connection = connection.clone();
        tokio::spawn(async move {
            let key = format!("shared:{number}");
            let () = connection.set(&key, number).await.expect("OK");
            assert_eq!(connection.get(&key).await, Ok(number));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("it ends well");
    }
}
