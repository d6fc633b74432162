//! Another configuration while clients are served: no request is lost, nobody is disconnected.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use servers::{Client, Fake, Server, address, eventually, logged, reload, shown};

mod servers;

/// A client that checks every value: its keys may move to a shard that has an older value, or none, but never another's.
fn work(mut client: Client, number: usize, done: &AtomicBool, requests: &AtomicU64) {
    let mut ever: HashMap<String, HashSet<String>> = HashMap::new();
    let mut round = 0u64;
    while !done.load(Ordering::Relaxed) {
        let key = format!("client:{number}:{}", round % 50);
        let value = format!("{number}/{round}");
        client.send(&servers::encoded(&[b"SET", key.as_bytes(), value.as_bytes()]));
        client.send(&servers::encoded(&[b"GET", key.as_bytes()]));
        client.send(&servers::encoded(&[b"MGET", key.as_bytes(), b"none:1", b"none:2", b"none:3"]));
        assert_eq!(shown(&client.reply()), "+OK\\r\\n");
        ever.entry(key.clone()).or_default().insert(value);
        for _ in 0..2 {
            let reply = shown(&client.reply());
            assert!(!reply.is_empty(), "the connection was closed");
            let nils = reply.matches("$-1\\r\\n").count();
            let reply = reply.strip_prefix("*4\\r\\n").unwrap_or(&reply);
            let value =
                reply.strip_prefix('$').and_then(|rest| rest.split("\\r\\n").nth(1)).unwrap_or_default();
            let known = ever[&key].contains(value) || (nils > 0 && reply.starts_with("$-1"));
            assert!(known, "{key}: {reply}");
        }
        requests.fetch_add(3, Ordering::Relaxed);
        round += 1;
    }
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    let shards: Vec<Server> = (0..5).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let settings = ["timeout: 20000"];
    let proxy = Server::memstore_over(&settings, &lines[..3]);
    let (done, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|number| {
                let (client, done, requests) = (proxy.connect(), &done, &requests);
                scope.spawn(move || work(client, number, done, requests))
            })
            .collect();
        let mut memory = 0;
        for round in 0..100 {
            // Shards come and go, weights change, more connections to each.
            let chosen: Vec<String> = (0..5)
                .filter(|shard| (round + shard) % 3 != 0 || *shard == round % 5)
                .map(|shard| {
                    let heavier = format!(":{} shard", 1 + (round + shard) % 2);
                    lines[shard].replacen(":1 shard", &heavier, 1)
                })
                .collect();
            let connections = format!("server_connections: {}", 1 + round % 7 / 5);
            let settings = [settings[0], &connections, "auto_eject_hosts: true"];
            proxy.rewrite(&settings, &chosen);
            reload(&proxy);
            if round % 10 == 5 {
                let failed = proxy.printed().matches("reload failed").count();
                proxy.overwrite("pool:\n  listen: nowhere\n  sevrers: []\n");
                proxy.signal("HUP");
                logged(&proxy, "reload failed", failed + 1);
            }
            let before = requests.load(Ordering::Relaxed);
            eventually(|| (requests.load(Ordering::Relaxed) > before + 20).to_string(), "true");
            if round == 20 {
                memory = proxy.memory();
            }
        }
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a client saw nothing odd");
        }
        let after = proxy.memory();
        assert!(after < memory + (4 << 20), "memory grew from {memory} to {after} bytes");
    });
    assert!(!proxy.printed().contains("panicked"), "{}", proxy.printed());
}

#[test]
fn what_cannot_hold_changes_nothing_and_is_told() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let proxy = Server::memstore_over(&[], &lines);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let listen = client.peer();
    let twice = format!(
        "a:\n  listen: {listen}\n  redis: true\n  servers: [{0}]\nb:\n  listen: 0.0.0.0:{1}\n  redis: true\n  servers: [{0}]\n",
        lines[0],
        listen.port()
    );
    for (broken, reason) in [
        (twice.as_str(), "pool b: cannot listen on 0.0.0.0"),
        ("pool:\n  listen: 127.0.0.1:1\n  hsah: md5\n  servers: []\n", "did you mean"),
        ("", "the file is empty"),
    ] {
        let failures = proxy.printed().matches("reload failed").count();
        proxy.overwrite(broken);
        proxy.signal("HUP");
        logged(&proxy, "reload failed", failures + 1);
        proxy.says(reason);
        assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
    }
    // A pool cannot become one of the other protocol.
    proxy.rewrite(&["redis: false"], &lines);
    proxy.signal("HUP");
    logged(&proxy, "cannot change between Redis and memcache", 1);
    assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
}

#[test]
fn a_shard_that_does_not_answer_is_not_adopted() {
    let shard = Server::redis(&[]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&[], &lines);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let silent = Fake::answering(b"", false);
    let with_silent = [lines[0].clone(), silent.line.replace("shard-0", "shard-1")];
    proxy.rewrite(&["adopt_wait: 300ms", "timeout: 5000"], &with_silent);
    proxy.signal("HUP");
    logged(&proxy, "shard shard-1 does not answer", 1);
    assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
    // Who does not want to wait need not.
    proxy.rewrite(&["adopt_wait: none", "timeout: 5000"], &with_silent);
    reload(&proxy);
    assert_eq!(client.tell("PING"), "+PONG\r\n");
}

#[test]
fn a_changed_file_is_noticed_and_shards_that_stay_keep_their_connections() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    // Nobody asks the shards what they can do.
    let known = ["preconnect: true", "resp3: true", "databases: 1", "info_refresh: none"];
    let proxy = Server::memstore_over(&known, &lines[..1]);
    let mut client = proxy.connect();
    client.tell("SET a 1");
    let connections = || {
        let mut asks = shards[0].connect();
        let own = asks.tell("CLIENT ID").trim_start_matches(':').trim().to_owned();
        let list = asks.tell("CLIENT LIST");
        let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
        ids.filter(|id| *id != own).map(str::to_owned).collect::<Vec<_>>()
    };
    // Each worker has its connection, and whoever has asked the shard something has none any more.
    eventually(|| connections().len().to_string(), "2");
    let before = connections();
    proxy.rewrite(&[&known[..], &["adopt_wait: none"]].concat(), &lines);
    logged(&proxy, " reloaded ", 1);
    for key in 0..20 {
        assert_eq!(client.tell(&format!("SET k{key} 1")), "+OK\r\n");
    }
    eventually(|| connections().join(" "), &before.join(" "));
}

/// What concerns all shards is passed on while there is one.
#[test]
fn a_pool_of_one_shard_becomes_one_of_two_and_back() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let proxy = Server::memstore_over(&[], &lines[..1]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("DBSIZE"), ":0\r\n");
    proxy.rewrite(&[], &lines);
    reload(&proxy);
    let reply = client.tell("SORT l BY w_*");
    assert!(reply.starts_with("-ERR '") && reply.contains(" is refused"), "{reply}");
    proxy.rewrite(&[], &lines[..1]);
    reload(&proxy);
    assert_eq!(client.tell("DBSIZE"), ":0\r\n");
    assert_eq!(client.tell("SORT l BY w_*"), "*0\r\n");
}

/// Also while another shard cannot say what it can do.
#[test]
fn what_was_learnt_of_a_shard_goes_with_it() {
    let shards = [Server::redis(&["--databases", "4"]), Server::redis(&[])];
    let mut lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    lines.push(format!("{}:{}:1 shard-2", servers::address(), servers::unused_port()));
    let proxy = Server::memstore_over(&["adopt_wait: none"], &lines);
    let mut client = proxy.connect();
    eventually(|| client.tell("SELECT 10"), "-ERR DB index is out of range\r\n");
    proxy.rewrite(&["adopt_wait: none"], &lines[1..]);
    reload(&proxy);
    assert_eq!(client.tell("SELECT 10"), "+OK\r\n");
    // What was asked for fewer databases says nothing about more.
    proxy.rewrite(&["adopt_wait: none", "databases: 32"], &lines[1..]);
    reload(&proxy);
    eventually(|| client.tell("SELECT 20"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.tell("SELECT 10"), "+OK\r\n");
}

#[test]
fn limits_and_passwords_change() {
    let shard = Server::redis(&["--requirepass", "old"]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&["redis_auth: old"], &lines);
    let mut client = proxy.connect();
    assert_eq!(client.tell("AUTH old"), "+OK\r\n");
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let mut admin = shard.connect();
    admin.tell("AUTH old");
    admin.tell("CONFIG SET requirepass new");
    proxy.rewrite(&["redis_auth: new", "reauth: keep", "client_connections: 1", "timeout: 2000"], &lines);
    reload(&proxy);
    // It was let in before and stays.
    assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
    assert_eq!(proxy.connect().tell("PING"), "-ERR max number of clients reached\r\n");
    admin.tell("CLIENT KILL TYPE normal SKIPME yes");
    eventually(|| client.tell("GET a"), "$1\r\n1\r\n");
    shard.signal("STOP");
    let reply = client.tell("GET a");
    shard.signal("CONT");
    assert_eq!(reply, "-ERR shard shard-0: timed out\r\n");
}

#[test]
fn who_was_let_in_with_the_former_password_is_closed() {
    let shard = Server::redis(&["--requirepass", "old"]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&["redis_auth: old"], &lines);
    let (mut inside, mut outside) = (proxy.connect(), proxy.connect());
    assert_eq!(inside.tell("AUTH old"), "+OK\r\n");
    assert_eq!(outside.tell("PING"), "-NOAUTH Authentication required.\r\n");
    // Another setting is no other password.
    proxy.rewrite(&["redis_auth: old", "timeout: 20000"], &lines);
    reload(&proxy);
    assert_eq!(inside.tell("PING"), "+PONG\r\n");
    let mut admin = shard.connect();
    admin.tell("AUTH old");
    admin.tell("CONFIG SET requirepass new");
    proxy.rewrite(&["redis_auth: new", "timeout: 20000"], &lines);
    reload(&proxy);
    assert_eq!(inside.until_closed(), b"");
    assert_eq!(
        outside.tell("AUTH old"),
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    );
    assert_eq!(outside.tell("AUTH new"), "+OK\r\n");
    assert_eq!(outside.tell("SET a 1"), "+OK\r\n");
    eventually(|| proxy.printed().contains("wrong password").to_string(), "true");
}

#[test]
fn a_file_that_comes_late_is_waited_for() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let proxy = Server::memstore_over(&[], std::slice::from_ref(&line));
    let listen = proxy.connect().peer();
    let name = format!("late-{}.list", servers::unused_port());
    proxy.overwrite(&format!(
        "pool:\n  listen: {listen}\n  redis: true\n  timeout: 5000\n  servers_file: {name}\n"
    ));
    logged(&proxy, "reload failed", 1);
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
    std::fs::write(&file, format!("- {line}\n")).expect("a file");
    logged(&proxy, " reloaded ", 1);
    let _ = std::fs::remove_file(file);
}

#[test]
fn shards_that_are_about_to_go_are_left_before_the_list_changes() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let name = format!("within-{}.list", servers::unused_port());
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
    let proxy = Server::memstore_over(&[&format!("servers_within: {name}")], &lines);
    let mut client = proxy.connect();
    let written = |client: &mut Client| {
        (0..50).for_each(|key| assert_eq!(client.tell(&format!("SET k{key} 1")), "+OK\r\n"));
        let used = |shard: &Server| shard.connect().tell("DBSIZE") != ":0\r\n";
        let used = (used(&shards[0]), used(&shards[1]));
        shards.iter().for_each(|shard| assert_eq!(shard.connect().tell("FLUSHALL"), "+OK\r\n"));
        used
    };
    assert_eq!(written(&mut client), (true, true));
    std::fs::write(&file, format!("- {}\n", lines[1])).expect("a file");
    logged(&proxy, " reloaded ", 1);
    assert_eq!(written(&mut client), (false, true));
    // More than there are, or others, add nothing and take nothing away.
    std::fs::write(&file, format!("- {}\n- 127.0.0.1:1:1 another\n", lines[1])).expect("a file");
    logged(&proxy, " reloaded ", 2);
    assert_eq!(written(&mut client), (true, true));
    std::fs::write(&file, format!("- {}\n", lines[0])).expect("a file");
    logged(&proxy, " reloaded ", 3);
    assert_eq!(written(&mut client), (true, false));
    std::fs::remove_file(&file).expect("it is there");
    logged(&proxy, " reloaded ", 4);
    assert_eq!(written(&mut client), (true, true));
}

#[test]
fn a_corrected_file_takes_the_place_of_one_that_is_waited_for() {
    let shard = Server::redis(&[]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&[], &lines);
    let silent = Fake::answering(b"", false);
    let with_silent = [lines[0].clone(), silent.line.replace("shard-0", "shard-1")];
    proxy.rewrite(&["timeout: 5000"], &with_silent);
    proxy.signal("HUP");
    eventually(|| (silent.connections.load(Ordering::Relaxed) > 0).to_string(), "true");
    // It would be waited for a minute.
    proxy.rewrite(&["timeout: 6000"], &lines);
    proxy.signal("HUP");
    logged(&proxy, "the files or a server list changed meanwhile", 1);
    logged(&proxy, " reloaded ", 1);
    assert!(!proxy.printed().contains("reload failed"));
}

#[test]
fn a_password_can_be_changed_on_one_shard_after_the_other() {
    let shards = [Server::redis(&["--requirepass", "old"]), Server::redis(&["--requirepass", "old"])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let proxy = Server::memstore_over(&["redis_auth: old"], &lines);
    let mut admin = shards[0].connect();
    admin.tell("AUTH old");
    admin.tell("CONFIG SET requirepass new");
    proxy.rewrite(&["redis_auth: new"], &lines);
    reload(&proxy);
}

#[test]
fn both_passwords_are_good_while_one_takes_the_place_of_the_other() {
    let shards = [Server::redis(&["--requirepass", "old"]), Server::redis(&["--requirepass", "old"])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let stem = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("auth-{}", servers::unused_port()));
    let (password, previous) = (stem.with_extension("now"), stem.with_extension("before"));
    std::fs::write(&password, "old\n").expect("a file");
    let settings = [
        format!("redis_auth_file: {}", password.display()),
        format!("redis_auth_previous_file: {}", previous.display()),
    ];
    let proxy = Server::memstore_over(&settings.each_ref().map(String::as_str), &lines);
    // New clients with this password reach both shards, over connections that are new as well.
    let serves = |word: &str| {
        for (shard, known) in shards.iter().flat_map(|shard| [(shard, "old"), (shard, "new")]) {
            let mut admin = shard.connect();
            admin.tell(&format!("AUTH {known}"));
            admin.tell("CLIENT KILL TYPE normal SKIPME yes");
        }
        for hello in [format!("AUTH {word}"), format!("HELLO 3 AUTH default {word}")] {
            let mut client = proxy.connect();
            if !client.tell(&hello).starts_with(['+', '%']) {
                return false;
            }
            (0..20).for_each(|key| eventually(|| client.tell(&format!("SET k{key} 1")), "+OK\r\n"));
        }
        true
    };
    assert_eq!((serves("old"), serves("new")), (true, false));
    let inside = |word: &str| {
        let mut client = proxy.connect();
        assert_eq!(client.tell(&format!("AUTH {word}")), "+OK\r\n");
        client
    };
    let mut early = inside("old");
    std::fs::write(&previous, "old\n").expect("a file");
    std::fs::write(&password, "new\n").expect("a file");
    eventually(|| serves("new").to_string(), "true");
    assert!(serves("old"));
    assert_eq!(early.tell("PING"), "+PONG\r\n", "its password is good still");
    let (mut late, mut changed) = (inside("old"), inside("old"));
    assert_eq!(changed.tell("AUTH new"), "+OK\r\n");
    for shard in &shards {
        let mut admin = shard.connect();
        admin.tell("AUTH old");
        assert_eq!(admin.tell("CONFIG SET requirepass new"), "+OK\r\n");
        assert_eq!((serves("old"), serves("new")), (true, true));
    }
    std::fs::remove_file(&previous).expect("it is there");
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    eventually(|| proxy.connect().tell("AUTH old"), wrong);
    assert!(serves("new"));
    assert_eq!((early.until_closed(), late.until_closed()), (Vec::new(), Vec::new()));
    assert_eq!(changed.tell("PING"), "+PONG\r\n");
    let _ = std::fs::remove_file(&password);
}

#[test]
fn who_starts_while_new_shards_are_awaited_uses_what_the_others_use() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let port = servers::unused_port();
    let grown = [&lines[..], &[format!("{}:{port}:1 shard-2", address())]].concat();
    let (first, admin) = Server::memstore_with_admin(&["timeout: 20s"], &lines, &[]);
    let pin = "pin: {\"k1\": shard-2}";
    first.rewrite(&["timeout: 20s", pin], &grown);
    first.signal("HUP");
    let names = |admin: &str| {
        let pool = servers::topology(admin)["pools"]["pool"].clone();
        let used = pool["shards"].as_array().expect("a list").iter().map(|shard| shard["name"].clone());
        (used.collect::<Vec<_>>(), pool["shards_awaited"].clone())
    };
    eventually(|| names(&admin).1.to_string(), "[\"shard-2\"]");
    assert_eq!(names(&admin).0, ["shard-0", "shard-1"]);

    let peers = format!("servers_peers: {admin}");
    let (second, other) = Server::memstore_with_admin(&["timeout: 20s", &peers, pin], &grown, &[]);
    assert_eq!(names(&other).0, ["shard-0", "shard-1"]);
    eventually(|| names(&other).1.to_string(), "[\"shard-2\"]");
    let (mut one, mut two) = (first.connect(), second.connect());
    for key in 0..200 {
        assert_eq!(two.tell(&format!("SET k{key} {key}")), "+OK\r\n");
        assert!(one.tell(&format!("GET k{key}")).contains(&key.to_string()));
    }
    // One that starts alone has nobody to ask.
    let alone = format!("servers_peers: {}:{}", address(), servers::unused_port());
    let (_third, third) = Server::memstore_with_admin(&["timeout: 20s", &alone], &grown, &[]);
    assert_eq!(names(&third).0.len(), 3);

    let late = Server::redis_at(port);
    for admin in [&admin, &other] {
        eventually(|| format!("{:?}", (names(admin).0.len(), names(admin).1.to_string())), "(3, \"[]\")");
    }
    // What is pinned to it is there from now on.
    assert_eq!(two.tell("SET k1 pinned"), "+OK\r\n");
    for at in [&mut one, &mut late.connect()] {
        assert!(at.tell("GET k1").contains("pinned"));
    }
}

#[test]
fn a_list_that_leaves_shards_out_ends_by_itself() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let name = format!("ending-{}.list", servers::unused_port());
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
    let within = format!("servers_within: {name}");
    let write = |revision: u32| {
        std::fs::write(&file, format!("# {revision}\n- {}\n", lines[1])).expect("a file");
    };
    let state = |admin: &str| {
        let pool = servers::topology(admin)["pools"]["pool"].clone();
        let within = &pool["servers_within"];
        format!(
            "{} {} {}",
            pool["shards"].as_array().expect("a list").len(),
            within["leaves_out"],
            within["expired"]
        )
    };
    write(1);
    let settings = [within.as_str(), "servers_within_limit: 10s"];
    let (_proxy, admin) = Server::memstore_with_admin(&settings, &lines, &[]);
    assert_eq!(state(&admin), "1 [\"shard-0\"] false");
    assert!(servers::metrics(&admin).contains("memstore_shards_left_out{pool=\"pool\"} 1"));
    // Who starts meanwhile knows from the others since when.
    let peers = format!("servers_peers: {admin}");
    let attempt = format!("servers_within_attempt: {name}.attempt");
    let settings = [within.as_str(), "servers_within_limit: 1h", &peers, &attempt];
    let (_second, other) = Server::memstore_with_admin(&settings, &lines, &[]);
    for admin in [&admin, &other] {
        eventually(|| state(admin), "2 [\"shard-0\"] true");
        assert!(servers::metrics(admin).contains("memstore_servers_within_expired{pool=\"pool\"} 1"));
    }
    let (_third, third) = Server::memstore_with_admin(&settings, &lines, &[]);
    assert_eq!(state(&third), "2 [\"shard-0\"] true");
    // Put in force once more it counts anew, as it does when it is said anew; it is over when the list is gone.
    let copy = file.with_extension("list.attempt");
    std::fs::copy(&file, &copy).expect("a file");
    eventually(|| state(&other), "1 [\"shard-0\"] false");
    assert_eq!(state(&admin), "2 [\"shard-0\"] true");
    std::fs::remove_file(&copy).expect("it is there");
    write(2);
    eventually(|| state(&admin), "1 [\"shard-0\"] false");
    std::fs::remove_file(&file).expect("it is there");
    eventually(|| state(&other), "2 null null");
}

#[test]
fn a_shard_that_hangs_holds_up_neither_the_reload_nor_the_end() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let mut proxy = Server::memstore_over(&["timeout: 60s"], std::slice::from_ref(&line));
    let silent = Fake::answering(b"", false);
    let with_silent = [line.clone(), silent.line.replace("shard-0", "shard-1")];
    proxy.rewrite(&["timeout: 60s", "adopt_wait: 500ms"], &with_silent);
    let begin = std::time::Instant::now();
    proxy.signal("HUP");
    logged(&proxy, "shard shard-1 does not answer", 1);
    proxy.rewrite(&["timeout: 60s", "adopt_wait: 60s"], &with_silent);
    proxy.signal("HUP");
    let before = silent.connections.load(Ordering::Relaxed);
    eventually(|| (silent.connections.load(Ordering::Relaxed) > before).to_string(), "true");
    proxy.signal("TERM");
    assert_eq!(proxy.ended(), Some(0));
    assert!(begin.elapsed() < std::time::Duration::from_secs(40), "{:?}", begin.elapsed());
}

#[test]
fn a_password_that_shards_refuse_does_not_come_to_hold() {
    let shard = Server::redis(&["--requirepass", "right"]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&["redis_auth: right"], &lines);
    // A shard that is known is asked once, and not waited for.
    proxy.rewrite(&["redis_auth: wrong", "adopt_wait: 60s"], &lines);
    proxy.signal("HUP");
    logged(&proxy, "shard shard-0 rejected the new password", 1);
    let mut client = proxy.connect();
    assert_eq!(client.tell("AUTH right"), "+OK\r\n");
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    // Nor does it without one.
    proxy.rewrite(&["adopt_wait: 60s"], &lines);
    proxy.signal("HUP");
    logged(&proxy, "rejected the new password: NOAUTH", 1);
    // One that is away refuses nothing.
    shard.signal("STOP");
    proxy.rewrite(&["redis_auth: other", "adopt_wait: 60s"], &lines);
    reload(&proxy);
    shard.signal("CONT");
}

#[test]
fn settings_of_the_process_change_or_are_named() {
    let shard = Server::redis(&[]);
    let proxy = Server::memstore_over(&[], &[shard.line(0)]);
    let listen = proxy.connect().peer();
    let pools = |settings: &str| {
        format!(
            "{settings}pools:\n  pool:\n    listen: {listen}\n    redis: true\n    servers:\n     - {}\n",
            shard.line(0)
        )
    };
    proxy.overwrite(&pools("log_level: debug\ndns_server: 127.0.0.1:53\n"));
    reload(&proxy);
    logged(&proxy, "need a restart settings=dns_server", 1);
    // What was logged at other levels is logged at this one.
    proxy.overwrite(&pools("log_level: error\n"));
    proxy.signal("HUP");
    eventually(|| proxy.printed().matches("need a restart").count().to_string(), "1");
    proxy.overwrite("");
    proxy.signal("HUP");
    logged(&proxy, "reload failed", 1);
    assert_eq!(proxy.printed().matches(" reloaded ").count(), 1);
}
