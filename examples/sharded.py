"""One ensemble and one large model over the devices of several processes, each making its part.

On two machines (or, to try it, in two terminals of one), with the first one's address:

    python examples/sharded.py --coordinator localhost:9876 --processes 2 --process 0
    python examples/sharded.py --coordinator localhost:9876 --processes 2 --process 1

Without arguments it is one process. Each prints the parts that its devices hold, by a hash that
does not depend on how many processes or devices there are.
"""

import argparse
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb


def model(key):
    w, b = jax.random.split(key)
    return {
        "w": jax.random.normal(w, (1024, 256)) * 0.05,
        "b": jax.random.truncated_normal(b, -2.0, 2.0, (1024,), jnp.bfloat16),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", help="address of process 0, as host:port")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0, help="the number of this one")
    parser.add_argument("--devices", type=int, default=2, help="CPU devices of each process")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    if options.processes > 1:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    mesh = jax.make_mesh((len(jax.devices()) // 2, 2), ("data", "model"))
    # 16 members over all devices; and one model, its rows over one axis, its columns over another.
    members = NamedSharding(mesh, P(("data", "model")))
    ensemble = sb.ensemble(model, 16, out_shardings=members)(jax.random.key(0))
    parts = {"w": NamedSharding(mesh, P("data", "model")), "b": NamedSharding(mesh, P("data"))}
    single = sb.single(model, out_shardings=parts)(jax.random.key(0))
    for name, tree in (("ensemble", ensemble), ("single", single)):
        for leaf, array in tree.items():
            for shard in array.addressable_shards:
                held = hashlib.blake2b(np.asarray(shard.data).tobytes(), digest_size=8).hexdigest()
                index = [(cut.start or 0, cut.stop) for cut in shard.index]
                print(name, leaf, *index, held, flush=True)


if __name__ == "__main__":
    main()
