"""What `out_shardings` refuses, before any work: the message names the leaf, the spec, the mesh."""

import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits
from meshes import KEY, mesh_of, whole

pytestmark = pytest.mark.shared


def large(key):
    w, b = jax.random.split(key)
    return {"w": jax.random.normal(w, (512, 256)), "b": jax.random.uniform(b, (512,))}


MESH = "a mesh of (a: 4, b: 2)"
REFUSED = {
    "axis": (P("c"), f"gives {P('c')} for the leaf ['b'] of shape (8, 512), on {MESH}: the mesh "
             "has no axis 'c'"),
    "rank": (P("a", None, None), "it has 3 entries for 2 dimensions"),
    "twice": (P("a", "a"), "two dimensions cannot be split over the same axis 'a'"),
    "open": (P(P.UNCONSTRAINED), "a dimension that is left open has no size on a device"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_specs_that_do_not_fit(case):
    spec, message = REFUSED[case]
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    with jax.set_mesh(mesh), pytest.raises(ValueError) as error:
        sb.ensemble(large, 8, out_shardings=spec)(KEY)
    assert message in str(error.value)


def test_lengths_that_do_not_divide():
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    odd = sb.ensemble(lambda key: jax.random.bits(key, (6, 7)), 8, out_shardings=P(None, "a", "b"))
    with jax.set_mesh(mesh), pytest.raises(ValueError) as error:
        odd(KEY)
    assert str(error.value) == (
        f"`out_shardings` gives {P(None, 'a', 'b')} for the result of shape (8, 6, 7), on {MESH}: "
        "dimension 1 of length 6 does not divide into 4"
    )
    with pytest.raises(ValueError) as error:
        sb.ensemble(large, 6, out_shardings=NamedSharding(mesh, P("a")))(KEY)
    assert str(error.value) == (
        f"`size` is 6 members, which `out_shardings` splits into 4 parts of {MESH}; that does not "
        "divide. Choose a multiple, or pass pad=True: 8 members are made then, the first 6 of "
        "them the same"
    )
    with pytest.raises(ValueError, match="`index` is 3 members, which"):
        sb.ensemble(large, 8, out_shardings=NamedSharding(mesh, P("a"))).members(KEY, slice(0, 3))


def test_what_is_no_sharding():
    with pytest.raises(
        TypeError, match=r"must consist of NamedShardings.*got 3 of type int at \['w"
    ):
        sb.ensemble(large, 8, out_shardings={"w": 3, "b": None})
    with pytest.raises(ValueError, match="no mesh is set that it could be of: use jax.set_mesh"):
        sb.ensemble(large, 8, out_shardings=P("a"))(KEY)
    one, other = (NamedSharding(mesh_of("Auto", (n,)), P("x")) for n in (2, 4))
    with pytest.raises(ValueError, match=r"of one mesh; got a mesh of \(x: 4\) and a mesh of \(x:"):
        sb.ensemble(large, 8, out_shardings={"b": other, "w": one})(KEY)
    with pytest.raises(ValueError, match="prefix of the result's; got"):
        sb.ensemble(large, 8, out_shardings={"w": one})(KEY)
    with pytest.raises(ValueError, match="consists of None alone; leave it out"):
        sb.ensemble(large, 8, out_shardings={"w": None, "b": None})(KEY)
    with pytest.raises(ValueError, match="`pad` is for `out_shardings`, which is not given"):
        sb.ensemble(large, 8, pad=True)
    with pytest.raises(TypeError, match="`pad` must be True or False; got 1"):
        sb.ensemble(large, 8, out_shardings=one, pad=1)


def scaled(key, scale=1.0):
    return jax.random.uniform(key, (8,)) * scale


def test_keys_and_arguments_that_are_bound_elsewhere():
    place = NamedSharding(mesh_of("Auto", (2,)), P("x"))
    key = jax.device_put(KEY, jax.devices()[5])
    make = sb.ensemble(scaled, 8, out_shardings=place)
    with pytest.raises(ValueError) as error:
        make(key)
    assert str(error.value).startswith(
        "`key` is bound to " + str(jax.devices()[5]) + ", and `out_shardings` is of "
    )
    with pytest.raises(ValueError, match=r"`args\[0\]` is bound to 4 devices"):
        make(KEY, jax.device_put(1.0, NamedSharding(mesh_of("Auto", (4,)), P())))
    there = jax.device_put(KEY, NamedSharding(place.mesh, P()))
    assert_same_bits(whole(make(there)), whole(make(KEY)))


def test_memory_is_counted_as_often_as_it_is_taken(monkeypatch):
    monkeypatch.setattr("seedbed._ensemble.check._available_memory", lambda: 200 << 20)

    def megabytes(key):
        return jax.random.bits(key, (16 << 18,))  # 16 MiB

    mesh = mesh_of("Auto", (8,))
    assert sb.ensemble(megabytes, 8, out_shardings=NamedSharding(mesh, P("x")))(KEY).shape[0] == 8
    with pytest.raises(MemoryError, match="are 1,073,741,824 bytes, and 209,715,200 bytes are fre"):
        sb.ensemble(megabytes, 8, out_shardings=NamedSharding(mesh, P()))(KEY)
