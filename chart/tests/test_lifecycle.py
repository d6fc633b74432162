"""What an upgrade asks of what runs: shards that keep nothing are not emptied without a word, and volumes may become larger."""

import unittest

from rendering import CHART, helm, pick, refused, rendered, told


class Running(unittest.TestCase):
    """Against the StatefulSet of an earlier revision."""

    def statefulset(self, values, **status):
        found = pick(rendered(values), "StatefulSet")
        found["status"] = {"replicas": found["spec"]["replicas"], "updatedReplicas": found["spec"]["replicas"]} | status
        return found

    def test_shards_that_would_come_back_empty_are_not_restarted_without_a_word(self):
        changed = {"config": "maxclients 5000"}
        for more in ({}, {"type": "memcached"}):
            running = self.statefulset({"shards": more})
            other = {"image": {"repository": "other:1.6"}} if more else changed
            self.assertIn("shards.updateStrategy to OnDelete", refused({"shards": more | other}, running=[running]))
            for fine in ({"allowDataLoss": True}, {"updateStrategy": "OnDelete"}):
                rendered({"shards": more | other | fine}, running=[running])
            # More of them, and what is not in their pods, restarts none.
            rendered({"shards": more | {"count": 4}, "proxy": {"count": 5}}, running=[running])
        running = self.statefulset({"partitioning": "redis-cluster"})
        self.assertIn("shards.updateStrategy to OnDelete", refused({"partitioning": "redis-cluster", "shards": changed}, running=[running]))

    def test_shards_that_keep_their_keys_are_restarted(self):
        kept = {"shards": {"persistence": {"enabled": True}}}
        copied = {"partitioning": "redis-cluster", "redisCluster": {"replicasPerPrimary": 1}}
        for values in (kept, copied):
            running = self.statefulset(values)
            rendered(values | {"shards": values.get("shards", {}) | {"config": "maxclients 5000"}}, running=[running])

    def test_shards_that_persist_nothing_keep_nothing(self):
        none = {"enabled": True, "appendOnly": False}
        for more in (
            {"config": 'save ""'}, {"config": "maxclients 10\n  SAVE ''\n"}, {"extraArgs": ["--save", ""]}, {"config": "save 60 1\nsave \"\""},
            {"config": 'save 60 1', "extraArgs": ["--io-threads", "2", "--save", "''"]},
        ):
            values = {"shards": {"persistence": none} | more}
            self.assertIn("nothing would be persisted", refused(values))
            meant = {"shards": values["shards"] | {"allowDataLoss": True}}
            running = self.statefulset(meant)
            self.assertIn("nothing is persisted", told(meant))
            # What comes after takes no copy along that there is not.
            for later in ({"persistence": {"enabled": True}}, {"persistence": none, "config": "save 60 1"}):
                self.assertIn("returns empty", refused({"shards": later}, running=[running]))
        for overruled in ({"config": 'appendonly no\nsave ""'}, {"extraArgs": ["--appendonly", "no", "--save", ""]}):
            self.assertIn("nothing would be persisted", refused({"shards": {"persistence": {"enabled": True}} | overruled}))
        for fine in ({}, {"config": "save 60 1"}, {"config": 'save ""\nsave 60 1'}, {"config": '# save ""'}, {"config": 'save ""\nappendonly yes'}):
            rendered({"shards": {"persistence": none} | fine})
        rendered({"shards": {"persistence": {"enabled": True}, "config": 'save ""'}})

    def test_a_log_of_writes_that_is_not_there_hides_no_snapshot(self):
        snapshots, log = ({"shards": {"persistence": {"enabled": True, "appendOnly": appends}}} for appends in (False, True))
        self.assertIn("CONFIG SET appendonly yes", refused(log, running=[self.statefulset(snapshots)]))
        rendered({"shards": log["shards"] | {"allowDataLoss": True}}, running=[self.statefulset(snapshots)])
        rendered(snapshots, running=[self.statefulset(log)])
        # A cluster that has replicas copies from those.
        copied = {"partitioning": "redis-cluster", "redisCluster": {"replicasPerPrimary": 1}}
        rendered(copied | log, running=[self.statefulset(copied | snapshots)])

    def test_a_primary_that_persists_nothing_waits_for_its_replica(self):
        copied = {"partitioning": "redis-cluster", "redisCluster": {"replicasPerPrimary": 1}}
        none = {"persistence": {"enabled": True, "appendOnly": False}, "config": 'save ""', "allowDataLoss": True}
        self.assertIn("would empty that too", str(self.statefulset(copied | {"shards": none})))
        self.assertNotIn("would empty that too", str(self.statefulset(copied | {"shards": {"persistence": {"enabled": True}}})))

    def test_pods_that_wait_for_a_person_are_not_replaced_when_that_ends(self):
        running = self.statefulset({"shards": {"updateStrategy": "OnDelete"}}, updatedReplicas=1)
        self.assertIn("shards.updateStrategy to OnDelete", refused({}, running=[running]))
        rendered({}, running=[self.statefulset({"shards": {"updateStrategy": "OnDelete"}})])

    def test_keys_stay_on_their_shards(self):
        named = {"shards": {"ringNames": ["a", "b", "c"]}}
        running = self.statefulset(named)
        for values in (
            {"shards": {"ringNames": ["b", "a", "c"]}},
            {},
            *(named | {"proxy": {"pool": pool}} for pool in ({"hash": "md5"}, {"distribution": "modula"}, {"hash_tag": "{}"}, {"pin": {"rq:": "a"}})),
        ):
            self.assertIn("changes which shard has which key", refused(values, running=[running]))
        rendered({"shards": {"allowDataLoss": True}}, running=[running])
        rendered({"shards": {"ringNames": ["a", "b", "c", "d"], "count": 4}}, running=[running])
        self.assertIn("shards.allowDataLoss is set", told({"shards": {"allowDataLoss": True}}))

    def test_another_name_leaves_no_shards_behind(self):
        running = self.statefulset({})
        for values, code in (({"fullnameOverride": "other"}, 1), ({"nameOverride": "other"}, 1), ({}, 0)):
            done = helm("template", "cache", str(CHART), "--namespace", "ns", "--is-upgrade", values=values, running=[running])
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual("would be called" in done.stderr, bool(code), done.stderr)

    def test_the_way_to_larger_volumes_is_told(self):
        size = {"shards": {"persistence": {"enabled": True, "size": "8Gi"}}}
        running = self.statefulset(size)
        larger = {"shards": {"persistence": {"enabled": True, "size": "16Gi"}}}
        words = refused(larger, running=[running])
        for part in ("patch pvc data-cache-memstore-shards-0 -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"16Gi\"}}}}'",
                     "delete statefulset cache-memstore-shards --cascade=orphan"):
            self.assertIn(part, words)
        # The StatefulSet is away by then.
        rendered(larger)
        for other in ({"size": "4Gi"}, {"size": "16Gi", "storageClass": "fast"}, {"enabled": False}):
            values = {"shards": {"persistence": {"enabled": True} | other}}
            self.assertIn("install another release beside it", refused(values, running=[running]))


if __name__ == "__main__":
    unittest.main()
