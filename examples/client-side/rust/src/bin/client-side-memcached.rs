//! Writes keys to the memcached shards that own them and reads them back.

use std::collections::HashMap;

use memcache_async::ascii::Protocol;
use memstore_client_side::{arguments, owner};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (mut shards, keys) = arguments()?;
    // One connection to each shard, made when its first key comes.
    let mut connections: HashMap<String, Protocol<Compat<TcpStream>>> = HashMap::new();
    for key in keys {
        if let Err(error) = shards.refresh() {
            // What was read last goes on.
            eprintln!("{error}");
        }
        let (name, address) = owner(shards.topology(), key.as_bytes())?;
        if !connections.contains_key(&address) {
            let stream = TcpStream::connect(&address).await?;
            connections.insert(address.clone(), Protocol::new(stream.compat()));
        }
        let connection = connections.get_mut(&address).expect("just inserted");
        connection.set(&key, format!("value of {key}").as_bytes(), 0).await?;
        let value = String::from_utf8(connection.get(&key).await?)?;
        println!("{key} -> {name} ({address}): {value}");
    }
    Ok(())
}
