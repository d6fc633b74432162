"""redis_exporter, by which Prometheus watches Redis: what it reads of the proxy are the figures of all shards together.

Standard library only; the exporter is Debian's.
"""

import os
import subprocess
import time
import urllib.request

HOST, PORT = os.environ["MEMSTORE_HOST"], os.environ["MEMSTORE_PORT"]
SHARDS, OWN = os.environ["MEMSTORE_SHARD_PORTS"].split(), os.environ["MEMSTORE_EXPORTER_PORT"]
# INFO is polled every 5 seconds.
PATIENCE = 30


def cli(port, *words):
    return subprocess.run(["redis-cli", "-h", HOST, "-p", port, *words], check=True, capture_output=True, text=True).stdout.strip()


def info(port, section):
    lines = [line.strip().partition(":") for line in cli(port, "INFO", section).splitlines()]
    return {name: value for name, _, value in lines if value}


def calls(port, command):
    told = info(port, "commandstats").get(f"cmdstat_{command}", "calls=0,")
    return int(told.split(",")[0].removeprefix("calls="))


def scrape():
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{OWN}/metrics", timeout=PATIENCE) as page:
                lines = page.read().decode().splitlines()
            return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}
        except OSError:
            assert time.monotonic() < deadline, "the exporter does not answer"
            time.sleep(0.1)


def main():
    requests = "".join(f"SET exporter:{number} {'v' * (number + 1)}\n" for number in range(300))
    subprocess.run(["redis-cli", "-h", HOST, "-p", PORT], input=requests, check=True, stdout=subprocess.DEVNULL, text=True)
    assert cli(PORT, "RPUSH", "exporter:list", "a", "b", "c") == "3"
    keys = sum(int(cli(port, "DBSIZE")) for port in SHARDS)
    program = "prometheus-redis-exporter"
    told = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    exporter = subprocess.Popen(
        [program, "-redis.addr", f"redis://{HOST}:{PORT}", "-web.listen-address", f"{HOST}:{OWN}", "-check-single-keys", "db0=exporter:list"], **told
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while (found := scrape()).get('redis_db_keys{db="db0"}') != keys:
            assert time.monotonic() < deadline, (keys, {name: found[name] for name in found if "db_keys" in name})
            time.sleep(0.2)
        used = sum(int(info(port, "memory")["used_memory"]) for port in SHARDS)
        written = sum(calls(port, "set") for port in SHARDS)
        assert found["redis_up"] == 1 and found['redis_exporter_last_scrape_error{err=""}'] == 0, found
        assert found['redis_commands_total{cmd="set"}'] == written >= 300, (found['redis_commands_total{cmd="set"}'], written)
        # That of the proxy, which may have grown meanwhile.
        assert 0 <= found["redis_slowlog_length"] <= int(cli(PORT, "SLOWLOG", "LEN")), found["redis_slowlog_length"]
        assert found['redis_key_size{db="db0",key="exporter:list"}'] == 3
        assert 0.8 * used < found["redis_memory_used_bytes"] < 1.25 * used, (found["redis_memory_used_bytes"], used)
        for name in ("redis_net_input_bytes_total", "redis_net_output_bytes_total", "redis_commands_processed_total", "redis_connected_clients"):
            assert found[name] > 0, name
    finally:
        exporter.terminate()
        exporter.wait()


main()
