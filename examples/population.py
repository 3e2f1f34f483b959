"""Population-based training: many networks train at once, and the best replace the worst.

Every member has a learning rate of its own. After each round the quarter of the members that is
worst on held-out data becomes a copy of the best quarter (exploit), with changed learning rates
(explore). Copies make the population ever more alike, so of these members a few start anew instead,
from weights and a learning rate of their own. See Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846
"""

import argparse

import jax
import jax.numpy as jnp
import optax

import seedbed as sb


def spirals(key, count=400):
    """Noisy points on the two arms of a spiral, and which arm each is on."""
    key_turn, key_noise = jax.random.split(key)
    turn = 3 * jnp.pi * jnp.sqrt(jax.random.uniform(key_turn, (count,)))
    arm = jnp.arange(count) % 2
    angle = turn + jnp.pi * arm
    x = turn[:, None] / 5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return x + 0.15 * jax.random.normal(key_noise, x.shape), arm


def exploit_and_explore(key, order, params, state):
    """Copies the best quarter of the members over the worst, with other learning rates."""
    members = jnp.arange(len(order))
    quarter = len(order) // 4
    source = members.at[order[-quarter:]].set(order[:quarter])
    # Members are the first axis of every array, so copying members is indexing.
    params, state = jax.tree.map(lambda leaf: leaf[source], (params, state))
    rates = state.hyperparams["learning_rate"]
    factors = jax.random.choice(key, jnp.array([0.7, 1.4]), rates.shape)
    rates = jnp.where(source == members, rates, rates * factors)
    return params, state._replace(hyperparams={**state.hyperparams, "learning_rate": rates})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few members, few rounds")
    parser.add_argument("--anew", type=int, help="how many start anew in a round: one of sixteen")
    options = parser.parse_args()
    members, rounds, steps = (16, 6, 30) if options.small else (256, 12, 50)
    anew = members // 16 if options.anew is None else options.anew

    sb.random.seed(0)
    train_data, held_out = spirals(sb.random.next_key()), spirals(sb.random.next_key())
    first, middle, last = sb.nn.Linear(2, 16), sb.nn.Linear(16, 16), sb.nn.Linear(16, 2)
    net = sb.nn.Sequential(first, jnp.tanh, middle, jnp.tanh, last)
    definition, _ = sb.nn.split(sb.nn.init_all_states(net))
    init_net = sb.nn.init_function(net)
    optimiser = optax.inject_hyperparams(optax.adam)

    def init(key):
        """A member: weights, and an optimiser with a learning rate of its own."""
        key_net, key_rate = jax.random.split(key)
        params = init_net(key_net)
        rate = 10 ** jax.random.uniform(key_rate, minval=-5.0, maxval=-0.5)
        return params, optimiser(rate).init(params)

    make = sb.ensemble(init, members)
    params, state = make(sb.random.next_key())
    # Under vmap optax sees one member at a time, so each has its own learning rate.
    update = jax.vmap(optimiser(0.0).update)

    def losses(params, data):
        x, arm = data
        logits = jax.vmap(lambda params: sb.nn.merge(definition, params)(x))(params)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, arm[None])
        return each.mean(axis=1)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda params: losses(params, train_data).sum())(params)
        updates, state = update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(key, params, state):
        (params, state), _ = jax.lax.scan(step, (params, state), length=steps)
        result = losses(params, held_out)
        order = jnp.argsort(result)  # a member that diverged has NaN, and those come last
        key_rates, key_anew = jax.random.split(key)
        population = exploit_and_explore(key_rates, order, params, state)
        # The very worst; only as many as that are made.
        worst = order[members - anew :]
        return result, make.reinit(population, key_anew, worst)

    for number in range(1, rounds + 1):
        result, (params, state) = train(sb.random.next_key(), params, state)
        rate = state.hyperparams["learning_rate"][jnp.nanargmin(result)]
        best, median = jnp.nanmin(result), jnp.nanmedian(result)
        print(f"round {number:2}: best {best:.4f}, median {median:.4f}, best rate {rate:.4f}")


if __name__ == "__main__":
    main()
