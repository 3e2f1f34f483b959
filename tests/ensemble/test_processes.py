"""Several processes: each makes the parts of its devices, with the bits of a single process."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "sharded.py"


def free_port():
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        return bound.getsockname()[1]


def start(program, count, *arguments):
    """So many processes of one program, each told its number."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    address = f"localhost:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, *program, *arguments, "--coordinator", address]
            + ["--processes", str(count), "--process", str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def stop(processes):
    for process in processes:
        process.kill()
        process.communicate()


def whole_results():
    namespace = {"__name__": "example"}
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec"), namespace)
    model, key = namespace["model"], jax.random.key(0)
    members = jax.jit(jax.vmap(model))(jax.random.split(key, 16))
    return {"ensemble": members, "single": jax.jit(model)(key)}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.end("newest"))])
def test_every_part_has_the_bits_of_one_process(count):
    whole = whole_results()
    processes = start([EXAMPLE], count)
    seen = set()
    try:
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            for line in output.splitlines():
                name, leaf, rest = line.split(" ", 2)
                *index, held = rest.replace("(", "").split(") ")
                index = [part.split(", ") for part in index]
                cuts = [slice(int(a), None if b == "None" else int(b)) for a, b in index]
                part = np.ascontiguousarray(np.asarray(whole[name][leaf])[tuple(cuts)])
                assert hashlib.blake2b(part.tobytes(), digest_size=8).hexdigest() == held, line
                seen.add((name, leaf, str(cuts)))
    finally:
        stop(processes)
    # All parts: those of members, blocks of w, and of b, which is whole along one axis.
    assert len(seen) == 2 * 2 * count + 2 * count + count


_WAITS = """
import argparse, time
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import seedbed as sb
parser = argparse.ArgumentParser()
parser.add_argument("--coordinator")
parser.add_argument("--processes", type=int)
parser.add_argument("--process", type=int)
options = parser.parse_args()
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(
    options.coordinator, options.processes, options.process, heartbeat_timeout_seconds=10
)
place = NamedSharding(jax.make_mesh((len(jax.devices()),), ("x",)), P("x"))
make = sb.ensemble(lambda key: jax.random.normal(key, (64,)), 64, out_shardings=place)
while True:
    jax.block_until_ready(make(jax.random.key(0)))
    print("made", flush=True)
    time.sleep(0.2)
"""


@pytest.mark.end("newest")
def test_the_others_end_when_one_process_dies():
    processes = start(["-c", _WAITS], 2)
    try:
        for process in processes:
            assert process.stdout.readline() == "made\n"
        processes[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        processes[0].communicate(timeout=60)
        assert processes[0].returncode != 0
        # jax's runtime ends it, one heartbeat after the other was last heard of.
        assert time.monotonic() - began < 10 + 30
    finally:
        stop(processes)


_CACHED = """
import jax, seedbed as sb
from jax.sharding import NamedSharding, PartitionSpec as P
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
mesh = jax.make_mesh((4, 2), ("a", "b"))
init = lambda key: jax.random.normal(key, (64, 32))
sb.ensemble(init, 8, out_shardings=NamedSharding(mesh, P("a", "b")))(jax.random.key(0))
place = NamedSharding(jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)), P("x"))
jax.jit(sb.ensemble(init, 8), out_shardings=place)(jax.random.key(0))
print(sum(name.endswith("cache_hits") for name in hits), sum("misses" in name for name in hits))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    found = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", _CACHED],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append([*map(int, run.stdout.split())])
    (_, missed), (hit, again) = found
    assert missed > 0 and again == 0 and hit >= 2
