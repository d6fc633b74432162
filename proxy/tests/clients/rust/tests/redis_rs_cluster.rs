//! The cluster client of redis-rs with its defaults, where the proxy poses as a cluster. It sends CLUSTER SLOTS first.

use memstore_client_tests::{port, variable};
use redis::AsyncCommands as _;
use redis::cluster::ClusterClientBuilder;

#[tokio::test]
async fn keys_of_all_slots() {
    for name in ["MEMSTORE_FACADE_PORT", "MEMSTORE_FACADE_CLUSTER_PORT"] {
        let address = format!("redis://{}:{}/", variable("MEMSTORE_HOST"), port(name));
        let client = ClusterClientBuilder::new([address.as_str()]).build().expect("an address");
        let mut connection = client.get_async_connection().await.expect("a connection");
        let keys: Vec<_> = (0..300).map(|number| format!("redis-rs-cluster:{number}")).collect();
        for key in &keys {
            let () = connection.set(key, format!("{key}!")).await.expect("OK");
        }
        let values: Vec<String> = connection.mget(&keys).await.expect("values");
        assert!(values.iter().zip(&keys).all(|(value, key)| *value == format!("{key}!")));
        assert_eq!(connection.del(&keys[..200]).await, Ok(200));
        assert!(redis::cmd("DBSIZE").query_async::<u64>(&mut connection).await.expect("a number") >= 100);
    }
}
