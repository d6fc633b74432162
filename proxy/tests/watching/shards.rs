//! What shards do: they store counters, watch keys, and execute transactions.

use crate::*;

impl Run {
    pub fn execute(&mut self, all: bool) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            while (all || !self.random.one_in(3))
                && let Some(connection) = self.connections.get_mut(&id)
                && let Some((words, length)) = request(&connection.inbox)
            {
                connection.inbox.drain(..length);
                let reply = self.answer(id, words);
                self.connections.get_mut(&id).expect("just seen").outbox.extend(reply.bytes());
            }
        }
    }

    /// What a server says.
    pub fn answer(&mut self, id: ConnectionId, words: Vec<String>) -> String {
        let is_private = self.world.pool.is_private(id);
        let connection = self.connections.get_mut(&id).expect("just seen");
        let who = words.iter().find_map(|word| {
            let (what, who) = word.split_once("}")?.1.split_once(':')?;
            ["own", "for", "token"].contains(&what).then(|| who.split(':').next().expect("a number").parse())
        });
        let who: Option<usize> = who.map(|who| who.expect("a number"));
        if let (Some(holder), Some(who)) = (connection.holder, who) {
            assert_eq!(holder, who, "a connection on which {holder} watches has {words:?}");
        }
        let first = words[0].as_str();
        if let Some(queued) = &mut connection.queued
            && !["EXEC", "MULTI"].contains(&first)
        {
            queued.push(words);
            return "+QUEUED\r\n".into();
        }
        match first {
            "CLIENT" => format!(":{}\r\n", connection.number),
            "WATCH" => {
                assert!(is_private, "others would be guarded by this");
                self.coverage.reused += u64::from(connection.watches > 0);
                connection.watches += 1;
                connection.holder = who;
                connection.watched.extend(words.into_iter().skip(1));
                "+OK\r\n".into()
            }
            "UNWATCH" => {
                connection.forget();
                "+OK\r\n".into()
            }
            "MULTI" => {
                assert!(connection.queued.replace(Vec::new()).is_none(), "MULTI in MULTI");
                "+OK\r\n".into()
            }
            "EXEC" => {
                let queued = connection.queued.take().expect("EXEC without MULTI");
                let holder = connection.holder;
                let is_changed = std::mem::take(&mut connection.is_changed);
                connection.forget();
                self.transact(id, holder, &queued, is_changed)
            }
            _ => self.serve(id, &words),
        }
    }

    pub fn transact(
        &mut self,
        id: ConnectionId,
        holder: Option<usize>,
        queued: &[Vec<String>],
        is_changed: bool,
    ) -> String {
        let token = queued.iter().map(|words| &words[1]).find(|key| key.contains("token:"));
        let token = token.expect("each has one").clone();
        assert!(holder.is_some(), "{token} is executed without a guard");
        if is_changed {
            self.conflicts.insert(token);
            return "*-1\r\n".into();
        }
        assert!(!self.never.contains(&token), "{token} is executed, and its client was told that it is not");
        assert!(self.executed.insert(token), "a transaction is executed twice");
        for words in queued {
            let [_, key, value] = words.as_slice() else { panic!("{words:?}") };
            if !key.contains(':') {
                let store = self.store(id);
                let (before, value) = (store.get(key).copied().unwrap_or(0), value.parse::<u64>());
                assert_eq!(value, Ok(before + 1), "{key} has changed since it was read");
            }
        }
        let replies: String = queued.iter().map(|words| self.serve(id, words)).collect();
        format!("*{}\r\n{replies}", queued.len())
    }

    pub fn store(&mut self, id: ConnectionId) -> &mut HashMap<String, u64> {
        let name = self.world.pool.shard_of(id).expect("it is there").name.clone();
        self.stores.entry(name).or_default()
    }

    pub fn serve(&mut self, id: ConnectionId, words: &[String]) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["MGET", counter, own] => {
                let store = self.store(id);
                let shown = |key: &str| store.get(key).map_or("$-1\r\n".into(), |value| bulk(*value));
                format!("*2\r\n{}{}", shown(counter), shown(own))
            }
            ["INCR", key] => {
                let value = self.store(id).entry(key.to_owned()).or_default();
                *value += 1;
                let reply = format!(":{value}\r\n");
                self.changed(id, key);
                reply
            }
            ["SET", key, value] => {
                let value: u64 = value.parse().expect("a number");
                let before = self.store(id).insert(key.to_owned(), value).unwrap_or(0);
                assert!(before < value, "{key} is set to {value}, and was {before}: that was overtaken");
                self.changed(id, key);
                "+OK\r\n".into()
            }
            _ => panic!("a shard was sent {words:?}"),
        }
    }

    pub fn changed(&mut self, id: ConnectionId, key: &str) {
        let name = |id: ConnectionId| self.world.pool.shard_of(id).map(|shard| shard.name.clone());
        let at = name(id);
        let touched: Vec<ConnectionId> =
            self.connections.keys().copied().filter(|&id| name(id) == at).collect();
        for id in touched {
            let connection = self.connections.get_mut(&id).expect("just seen");
            connection.is_changed |= connection.watched.contains(key);
        }
    }
}
