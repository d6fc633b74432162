//! async-memcached with its defaults: it sends nothing on its own, and knows the classic and the meta commands.

use async_memcached::{AsciiProtocol, Client, Error, ErrorKind, MetaProtocol, Status};
use memstore_client_tests::{binary, port, variable};

async fn connect() -> Client {
    let address = format!("tcp://{}:{}", variable("MEMSTORE_HOST"), port("MEMSTORE_MEMCACHE_PORT"));
    Client::new(address).await.expect("a connection")
}

fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    match result.expect_err("not a success") {
        Error::Protocol(status) => status,
        other => panic!("not a reply: {other}"),
    }
}

fn keys(name: &str) -> Vec<String> {
    (0..300).map(|number| format!("async-memcached:{name}:{number}")).collect()
}

#[tokio::test]
async fn keys_of_all_shards() -> Result<(), Error> {
    let mut client = connect().await;
    let keys = keys("classic");
    let pairs: Vec<_> = keys.iter().map(|key| (key, key)).collect();
    // One pipeline.
    let stored = client.set_multi(&pairs, None, None).await?;
    assert!(stored.len() == 300 && stored.values().all(Result::is_ok));
    let asked = keys.iter().map(String::as_str).chain(["missing"]);
    let values = client.get_multi(asked).await?;
    // In the order they were asked for, as a single server sends them.
    assert!(values.iter().map(|value| &value.key[..]).eq(keys.iter().map(String::as_bytes)));
    assert!(values.iter().all(|value| value.data.as_ref() == Some(&value.key)));
    client.delete_multi_no_reply(&keys[..200]).await?;
    assert_eq!(client.get_multi(&keys).await?.len(), 100);
    let pairs: Vec<_> = keys[190..210].iter().map(|key| (key, "added")).collect();
    let added = client.add_multi(&pairs, None, None).await?;
    assert_eq!(added.values().filter(|result| result.is_ok()).count(), 10);
    assert_eq!(client.get("missing").await?, None);
    Ok(())
}

#[tokio::test]
async fn classic_commands() -> Result<(), Error> {
    let mut client = connect().await;
    let _ = client.delete("rust:key").await;
    assert_eq!(status(client.delete("rust:key").await), Status::NotFound);
    client.add("rust:key", "v", Some(100), Some(u32::MAX)).await?;
    assert_eq!(status(client.add("rust:key", "no", None, None).await), Status::NotStored);
    assert_eq!(client.get("rust:key").await?.and_then(|value| value.flags), Some(u32::MAX));
    client.delete("rust:key").await?;
    assert_eq!(status(client.increment("rust:key", 1).await), Status::NotFound);
    client.set("rust:key", 40_u64, None, None).await?;
    assert_eq!(client.increment("rust:key", 2).await?, 42);
    client.increment_no_reply("rust:key", 10).await?;
    client.decrement_no_reply("rust:key", 2).await?;
    assert_eq!(client.decrement("rust:key", 100).await?, 0);
    client.set("rust:key", &binary()[..], None, None).await?;
    assert_eq!(client.get("rust:key").await?.and_then(|value| value.data), Some(binary()));
    assert!(matches!(status(client.increment("rust:key", 1).await), Status::Error(ErrorKind::Client(_))));
    client.delete_no_reply("rust:key").await?;
    assert_eq!(client.get("rust:key").await?, None);
    Ok(())
}

#[tokio::test]
async fn meta_commands() -> Result<(), Error> {
    let mut client = connect().await;
    // A quiet one is followed by "mn", whose reply must come after its own, if it has one.
    for quiet in [false, true] {
        let _ = client.meta_delete("rust:meta", false, None, None).await;
        assert_eq!(client.meta_get("rust:meta", quiet, None, Some(&["v"])).await?, None);
        assert_eq!(
            status(client.meta_set("rust:meta", "no", quiet, None, Some(&["MR"])).await),
            Status::NotStored
        );
        client.meta_set("rust:meta", "v", quiet, None, Some(&["T100", "F7"])).await?;
        let wanted = ["v", "k", "f", "t", "s", "c", "h", "l"];
        let value = client.meta_get("rust:meta", quiet, Some(b"opaque"), Some(&wanted)).await?;
        let value = value.expect("it was stored");
        assert_eq!(value.data.as_deref(), Some(&b"v"[..]));
        assert_eq!(value.key.as_deref(), Some(&b"rust:meta"[..]));
        assert_eq!(value.opaque_token.as_deref(), Some(&b"opaque"[..]));
        assert_eq!((value.flags, value.size, value.hit_before), (Some(7), Some(1), Some(false)));
        assert!((1..=100).contains(&value.ttl_remaining.expect("t was asked for")));
        let unique = format!("C{}", value.cas.expect("c was asked for"));
        client.meta_set("rust:meta", "40", quiet, None, Some(&[&unique])).await?;
        assert_eq!(
            status(client.meta_set("rust:meta", "0", quiet, None, Some(&[&unique])).await),
            Status::Exists
        );
        // Quiet, a success is not told, not even with its value.
        let sum = client.meta_increment("rust:meta", quiet, None, Some(2), Some(&["v"])).await?;
        assert_eq!(sum.and_then(|value| value.data), (!quiet).then(|| b"42".to_vec()));
        client.meta_decrement("rust:meta", quiet, None, None, None).await?;
        let value = client.meta_get("rust:meta", quiet, None, Some(&["v"])).await?;
        assert_eq!(value.and_then(|value| value.data).as_deref(), Some(&b"41"[..]));
        client.meta_delete("rust:meta", quiet, None, None).await?;
        assert_eq!(client.get("rust:meta").await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn meta_pipelines() -> Result<(), Error> {
    let mut client = connect().await;
    let keys = keys("meta");
    let pairs: Vec<_> = keys.iter().map(|key| (key, key)).collect();
    // 300 quiet requests and "mn", in one write.
    assert_eq!(client.meta_set_multi(&pairs, Some(&["T100"])).await?, []);
    let refused = client.meta_set_multi(&pairs, Some(&["ME"])).await?;
    assert!(refused.len() == 300 && refused.iter().all(|value| value.status == Some(Status::NotStored)));
    let asked: Vec<_> = keys.iter().flat_map(|key| [key.clone(), format!("{key}:missing")]).collect();
    let values = client.meta_get_multi(&asked, Some(&["v"])).await?;
    assert!(values.iter().map(|value| value.key.as_deref()).eq(keys.iter().map(|key| Some(key.as_bytes()))));
    assert!(values.iter().all(|value| value.data == value.key));
    Ok(())
}

#[tokio::test]
async fn large_values() -> Result<(), Error> {
    let mut client = connect().await;
    let large = vec![b'x'; 900_000];
    for key in 0..10 {
        client.set(format!("rust:large:{key}"), &large[..], None, None).await?;
        client.meta_set(format!("rust:large:{key}"), &large[..], true, None, None).await?;
    }
    let values = client.get_multi((0..10).map(|key| format!("rust:large:{key}"))).await?;
    assert!(values.len() == 10 && values.iter().all(|value| value.data.as_ref() == Some(&large)));
    let too_large = vec![b'x'; 1_100_000];
    let error = status(client.set("rust:large:0", &too_large[..], None, None).await);
    assert_eq!(error, Status::Error(ErrorKind::Server("object too large for cache".into())));
    client.set("rust:large:0", "small", None, None).await?;
    for key in 0..10 {
        client.delete(format!("rust:large:{key}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_server_itself() -> Result<(), Error> {
    let mut client = connect().await;
    assert_eq!(client.version().await?.trim().split('.').count(), 3);
    let statistics = client.stats().await?;
    assert_eq!(statistics.get("pool").map(String::as_str), Some("pool"));
    assert_eq!(statistics.get("shards").map(String::as_str), Some("3"));
    // Tests run side by side: what a flush would delete may be another one's, so it is left to other clients.
    let entry = client.dump_keys().await?.next().await;
    assert!(matches!(entry, Some(Err(_))), "{entry:?}");
    Ok(())
}
