//! Writes keys to the Redis shards that own them and reads them back.

use std::collections::HashMap;

use memstore_client_side::{arguments, owner};
use redis::{Client, Connection};

fn main() -> anyhow::Result<()> {
    let (mut shards, keys) = arguments()?;
    // One connection to each shard, made when its first key comes.
    let mut connections: HashMap<String, Connection> = HashMap::new();
    for key in keys {
        if let Err(error) = shards.refresh() {
            // What was read last goes on.
            eprintln!("{error}");
        }
        let (name, address) = owner(shards.topology(), key.as_bytes())?;
        if !connections.contains_key(&address) {
            let connection = Client::open(format!("redis://{address}/"))?.get_connection()?;
            connections.insert(address.clone(), connection);
        }
        let connection = connections.get_mut(&address).expect("just inserted");
        redis::cmd("SET").arg(&key).arg(format!("value of {key}")).exec(connection)?;
        let value: String = redis::cmd("GET").arg(&key).query(connection)?;
        println!("{key} -> {name} ({address}): {value}");
    }
    Ok(())
}
