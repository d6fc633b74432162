//! fred with its defaults: PING, CLIENT ID and INFO server before anything else, and in RESP3 HELLO 3.

use std::collections::HashMap;

use fred::prelude::*;
use fred::types::RespVersion;
use memstore_client_tests::{binary, port, variable};

async fn connect(change: impl FnOnce(&mut Config)) -> Result<Client, Error> {
    let server = ServerConfig::new_centralized(variable("MEMSTORE_HOST"), port("MEMSTORE_PORT"));
    let mut config = Config { server, ..Config::default() };
    change(&mut config);
    let client = Builder::from_config(config).build()?;
    client.init().await?;
    Ok(client)
}

async fn in_both_versions(test: impl AsyncFn(&Client) -> Result<(), Error>) {
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let client = connect(|config| config.version = version.clone()).await.expect("a connection");
        test(&client).await.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        client.quit().await.expect("it says goodbye");
    }
}

#[tokio::test]
async fn keys_of_all_shards() {
    in_both_versions(async |client| {
        let keys: Vec<_> = (0..300).map(|number| format!("fred:{number}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key.clone(), format!("{key}!"))).collect();
        let () = client.mset(pairs.clone()).await?;
        let values: Vec<String> = client.mget(keys.clone()).await?;
        assert!(values.iter().zip(&pairs).all(|(value, (_, expected))| value == expected));
        assert_eq!(client.exists::<i64, _>(keys.clone()).await?, 300);
        assert_eq!(client.del::<i64, _>(keys[..200].to_vec()).await?, 200);
        assert_eq!(client.get::<Option<String>, _>("missing").await?, None);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn types() {
    in_both_versions(async |client| {
        let () = client.del(vec!["hash", "list", "zset"]).await?;
        let () = client.hset("hash", [("f", "v"), ("n", "1")]).await?;
        let hash: HashMap<String, String> = client.hgetall("hash").await?;
        assert_eq!(hash, [("f", "v"), ("n", "1")].map(|(field, value)| (field.into(), value.into())).into());
        assert_eq!(client.rpush::<i64, _, _>("list", vec!["a", "b"]).await?, 2);
        assert_eq!(client.lrange::<Vec<String>, _>("list", 0, -1).await?, ["a", "b"]);
        assert_eq!(client.zadd::<i64, _, _>("zset", None, None, false, false, (2.5, "b")).await?, 1);
        assert_eq!(client.zscore::<f64, _, _>("zset", "b").await?, 2.5);
        let () = client.set("fleeting", "v", Some(Expiration::EX(100)), None, false).await?;
        assert!((1..=100).contains(&client.ttl::<i64, _>("fleeting").await?));
        let () = client.set("binary", &binary()[..], None, None, false).await?;
        assert_eq!(client.get::<Vec<u8>, _>("binary").await?, binary());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_in_one_pipeline() {
    in_both_versions(async |client| {
        let pipeline = client.pipeline();
        for number in 0..500 {
            let () = pipeline.set(format!("pipe:{number}"), number, None, None, false).await?;
        }
        for number in 0..500 {
            let () = pipeline.get(format!("pipe:{number}")).await?;
        }
        let replies: Vec<Value> = pipeline.all().await?;
        let values: Vec<_> = replies[500..].iter().filter_map(Value::as_i64).collect();
        assert_eq!(values, (0..500).collect::<Vec<_>>());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn transactions() {
    in_both_versions(async |client| {
        let () = client.del("{tx}untouched").await?;
        let transaction = client.multi();
        let () = transaction.set("{tx}touched", 1, None, None, false).await?;
        let () = transaction.incr("{tx}touched").await?;
        let reply: Vec<Value> = transaction.exec(true).await?;
        assert_eq!(reply.len(), 2, "{reply:?}");
        let spread = client.multi();
        for number in 0..20 {
            let () = spread.set(format!("tx:{number}"), number, None, None, false).await?;
        }
        let reply: Result<Value, Error> = spread.exec(true).await;
        reply.expect_err("the keys are on several shards");
        assert_eq!(client.get::<Option<String>, _>("{tx}untouched").await?, None);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_connection_itself() {
    in_both_versions(async |client| {
        assert_eq!(client.ping::<String>(None).await?, "PONG");
        assert!(client.info::<String>(None).await?.contains("redis_mode:standalone"));
        assert!(client.server_version().is_some_and(|version| version.major >= 7));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn databases() {
    let fourth = connect(|config| config.database = Some(4)).await.expect("a connection");
    let () = fourth.set("only there", "v", None, None, false).await.expect("OK");
    assert_eq!(fourth.get::<String, _>("only there").await.expect("v"), "v");
    let () = fourth.select(0).await.expect("OK");
    assert_eq!(fourth.get::<Option<String>, _>("only there").await.expect("nothing"), None);
}

#[tokio::test]
async fn passwords() {
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        for (user, password, right) in [
            (None, variable("MEMSTORE_PASSWORD"), true),
            (Some("default"), variable("MEMSTORE_PASSWORD"), true),
            (None, "wrong".to_owned(), false),
            (Some("nosuch"), variable("MEMSTORE_PASSWORD"), false),
        ] {
            let connected = connect(|config| {
                config.server =
                    ServerConfig::new_centralized(variable("MEMSTORE_HOST"), port("MEMSTORE_AUTH_PORT"));
                config.version = version.clone();
                config.username = user.map(str::to_owned);
                config.password = Some(password);
            });
            match connected.await {
                Ok(client) => {
                    assert!(right, "{version:?} {user:?}");
                    let () = client.set("k", "v", None, None, false).await.expect("OK");
                }
                Err(error) => assert!(!right, "{version:?} {user:?}: {error}"),
            }
        }
    }
}
