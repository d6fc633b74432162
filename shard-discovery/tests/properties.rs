//! What holds for every pool, and a second opinion from a published ketama.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use proptest::sample::{Index, select};
use shard_discovery::{Address, DistributionKind, KeyHash, Place, Shard, Topology};

fn named(name: &str, weight: u32) -> Shard {
    Shard::new(Address::Tcp { host: "h".into(), port: 1 }, weight, Some(name.into()))
}

fn pool(shards: Vec<Shard>, kind: DistributionKind, hash: KeyHash) -> Topology {
    Topology::new(shards, kind, hash, Some("{}".parse().unwrap())).unwrap()
}

/// Pools of equal shards, `shard-0` and so on.
fn equal(count: usize, kind: DistributionKind, hash: KeyHash) -> Topology {
    pool((0..count).map(|index| named(&format!("shard-{index}"), 1)).collect(), kind, hash)
}

fn shards() -> impl Strategy<Value = Vec<Shard>> {
    prop::collection::hash_map("[a-z0-9.:-]{1,12}", 1u32..200, 2..30)
        .prop_map(|weights| weights.iter().map(|(name, &weight)| named(name, weight)).collect())
}

fn kinds() -> impl Strategy<Value = DistributionKind> {
    select([DistributionKind::Ketama, DistributionKind::Modula, DistributionKind::Slots].as_slice())
}

fn hashes() -> impl Strategy<Value = KeyHash> {
    select(KeyHash::ALL.as_slice())
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let binary = prop::collection::vec(any::<u8>(), 0..40);
    let tagged = "[a-c{}]{0,12}".prop_map(String::into_bytes);
    prop::collection::vec(prop_oneof![binary, tagged], 1..100)
}

fn owner_name<'t>(topology: &'t Topology, key: &[u8]) -> &'t str {
    &topology.shards()[topology.shard_for(key).unwrap()].name
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_the_list_does_not_matter(
        (list, shuffled) in shards().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        kind in kinds(), hash in hashes(), keys in keys(),
    ) {
        let (topology, other) = (pool(list, kind, hash), pool(shuffled, kind, hash));
        prop_assert_eq!(topology.shards(), other.shards());
        for key in &keys {
            prop_assert_eq!(topology.shard_for(key), other.shard_for(key));
        }
    }

    #[test]
    fn an_explanation_ends_at_the_owner(
        list in shards(), kind in kinds(), hash in hashes(), keys in keys(),
        out in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let count = list.len();
        let topology = pool(list, kind, hash);
        let out: Vec<usize> = out.iter().map(|index| index.index(count)).collect();
        let topology = topology.without(&out);
        for key in &keys {
            let explanation = topology.explain(key);
            prop_assert_eq!(explanation.shard, topology.shard_for(key));
            prop_assert_eq!(explanation.hash, topology.key_hash().hash(explanation.hashed));
            prop_assert!(explanation.by_tag || explanation.hashed == &**key);
            match explanation.place {
                Some(Place::Point(_)) => prop_assert_eq!(kind, DistributionKind::Ketama),
                Some(Place::Slot(_)) => prop_assert_ne!(kind, DistributionKind::Ketama),
                None => prop_assert!(topology.ejected().len() == count),
            }
            prop_assert!(explanation.shard.is_none_or(|shard| !topology.ejected().contains(&shard)));
        }
    }

    #[test]
    fn shares_add_up_to_one(
        list in shards(), kind in select(&DistributionKind::ALL[..4]), hash in hashes(), out in any::<Index>(),
    ) {
        let out = out.index(list.len());
        let topology = pool(list, kind, hash).without(&[out]);
        let shares = topology.shares();
        prop_assert_eq!(shares.len(), topology.shards().len());
        prop_assert!((shares.iter().map(|share| share.share).sum::<f64>() - 1.0).abs() < 1e-9);
        prop_assert_eq!((shares[out].points, shares[out].share), (0, 0.0));
    }

    #[test]
    fn ejecting_and_restoring_leaves_no_trace(
        list in shards(), kind in kinds(), hash in hashes(), keys in keys(), out in any::<Index>(),
    ) {
        let out = out.index(list.len());
        let topology = pool(list, kind, hash);
        let restored = topology.without(&[out]).without(&[]);
        for key in &keys {
            prop_assert_eq!(restored.shard_for(key), topology.shard_for(key));
        }
    }

    #[test]
    fn an_ejected_ring_is_the_ring_of_a_pool_that_never_had_the_shard(
        list in shards().prop_filter("one is left over", |list| list.len() > 2),
        kind in select([DistributionKind::Ketama, DistributionKind::Modula].as_slice()),
        hash in hashes(), keys in keys(), out in any::<Index>(),
    ) {
        let topology = pool(list, kind, hash);
        let out = out.index(topology.shards().len());
        let mut rest = topology.shards().to_vec();
        rest.remove(out);
        let (reduced, smaller) = (topology.without(&[out]), pool(rest, kind, hash));
        for key in &keys {
            prop_assert_eq!(owner_name(&reduced, key), owner_name(&smaller, key));
        }
    }

    #[test]
    fn a_hash_tag_decides_alone(list in shards(), kind in kinds(), hash in hashes(), tag in "[a-z]{1,8}") {
        let topology = pool(list, kind, hash);
        let owner = topology.shard_for(format!("{{{tag}}}").as_bytes());
        prop_assert_eq!(topology.shard_for(format!("user:{{{tag}}}:name").as_bytes()), owner);
        prop_assert_eq!(topology.shard_for(tag.as_bytes()), owner);
    }
}

#[test]
fn one_more_shard_takes_its_part_and_moves_nothing_else() {
    for count in [2, 5, 10, 30] {
        let before = equal(count, DistributionKind::Ketama, KeyHash::Md5);
        let after = equal(count + 1, DistributionKind::Ketama, KeyHash::Md5);
        let new = format!("shard-{count}");
        let keys = 20_000;
        let mut moved = 0;
        for number in 0..keys {
            let key = format!("key:{number}").into_bytes();
            let (old_owner, new_owner) = (owner_name(&before, &key), owner_name(&after, &key));
            if old_owner != new_owner {
                assert_eq!(new_owner, new, "{number} moved between shards that were there before");
                moved += 1;
            }
        }
        let part = f64::from(moved) / f64::from(keys) * (count + 1) as f64;
        assert!((0.7..1.3).contains(&part), "{moved} of {keys} keys moved to shard {count}");
    }
}

#[test]
fn shares_are_what_keys_follow() {
    let weights = [1u32, 2, 3, 5, 8];
    let shards = weights.iter().map(|&weight| named(&format!("w{weight}"), weight)).collect::<Vec<_>>();
    for kind in [DistributionKind::Ketama, DistributionKind::Modula, DistributionKind::Slots] {
        let topology = pool(shards.clone(), kind, KeyHash::Md5);
        let mut owned = [0u32; 5];
        let keys = 100_000;
        for number in 0..keys {
            owned[topology.shard_for(format!("key:{number}").as_bytes()).unwrap()] += 1;
        }
        for share in topology.shares() {
            let measured = f64::from(owned[share.shard]) / f64::from(keys);
            assert!((measured - share.share).abs() < 0.01, "{kind}: {measured} of the keys, {share:?}");
        }
    }
}

#[test]
fn a_published_ketama_agrees() {
    for count in [1, 2, 3, 5, 10, 24, 48, 99, 150] {
        let ours = equal(count, DistributionKind::Ketama, KeyHash::Md5);
        let points: usize = ours.shares().iter().map(|share| share.points).sum();
        assert_eq!(points, 160 * count, "a number of shards where Twemproxy leaves points out");
        // It keeps the order it is given, which decides ties.
        let names: Vec<&str> = ours.shards().iter().map(|shard| &*shard.name).collect();
        let published = ketama::Ring::build(&names);
        for number in 0..5_000 {
            let key = format!("key:{number}");
            assert_eq!(
                ours.shard_for(key.as_bytes()),
                Some(published.route(key.as_bytes())),
                "{key} of {count}"
            );
        }
    }
}
