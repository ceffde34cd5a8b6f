"""What the values of a job must satisfy together: n and f, quorum, length, attack, processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kuiper import registry
from kuiper.config import sizes
from kuiper.config.schema import shown

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

Report = Callable[[str, str, str], None]  # key in job_conf, message, remedy
COUNTS = {"num_workers", "num_byzantine", "f"}
LENGTHS = ("steps", "epochs", "rounds")


def cross_check(conf: dict[str, Any], good: set[str], spec: Spec, simulate: bool, report: Report) -> None:
    """Report what does not fit together; checks that need a key that is not `good` are left out.

    Args:
        conf: values and groups, resolved but for f, quorum, engine and clock.
        good: keys of `conf` that passed the checks of their own.
    """
    for needed, one in (
        ({"algorithm", *LENGTHS}, _length),
        (COUNTS, _counts),
        ({"num_workers", "num_byzantine", "byzantine"}, _byzantine),
        ({"algorithm", "attack", "num_byzantine", "num_workers"}, _attack),
        ({*COUNTS, "algorithm", "aggregator", "pre_aggregator", "attack"}, _stand_ins),
        ({"algorithm", "aggregator", "pre_aggregator", "quorum", "deadline"}, _unused),
        ({"algorithm", "num_workers"}, _clients),
        ({"algorithm", "aggregator", "pre_aggregator"}, _places),
        ({*COUNTS, "algorithm", "aggregator", "quorum", "deadline", "byzantine", "seed"}, _trust),
        ({*COUNTS, "quorum", "deadline", "algorithm", "aggregator", "pre_aggregator", "attack"}, _needs),
        ({"clock", "algorithm", "transport"}, _clock),
        ({"pool"}, _pool),
        ({"ports"}, _ports),
        ({"num_workers"}, _processes),
        ({"transport", "algorithm", "attack", "quorum", "deadline", "security"}, _collective),
        ({"algorithm"}, _retry),
        ({"algorithm", "buffers"}, _buffers),
        *sizes.CHECKS,
    ):
        if needed <= good:
            one(conf, spec, simulate, report)


def declared(conf: dict[str, Any]) -> int:
    """f: what the rule is told to expect; the real number unless the job says otherwise."""
    return conf["num_byzantine"] if conf["f"] is None else conf["f"]


def expected(conf: dict[str, Any], f: int, rows: int) -> int:
    """What f is for the rows that arrive: of a round's clients, their part of it."""
    if conf["algorithm"].get("_family_") == "federated":
        return registry.of_cohort(f, conf["num_workers"], rows)
    return f


def _length(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    name, family = conf["algorithm"]["_name_"], conf["algorithm"].get("_family_")
    allowed = ("rounds",) if family == "federated" else ("steps", "epochs")
    given = [key for key in LENGTHS if conf[key] is not None]
    for key in given:
        if key not in allowed:
            report(key, f"is set, and {name} ({family}) counts in {' or '.join(allowed)}",
                   f"write `{allowed[0]}: ...` in its place")
    fitting = [key for key in given if key in allowed]
    if len(fitting) > 1:
        remedy = f"keep one: on the command line, -o {fitting[0]}=null"
        report(fitting[1], f"is set, and so is {fitting[0]}", remedy)
    if not given:
        report(allowed[0], f"is missing: {name} does not know how long to run",
               f"add `{' or `'.join(key + ': ...`' for key in allowed)} to job_conf")


def _counts(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    n = conf["num_workers"]
    for key in ("num_byzantine", "f"):
        if conf[key] is not None and conf[key] >= n:
            report(key, f"is {conf[key]}, and must be less than num_workers, {n}", f"write at most {n - 1}")


def _byzantine(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    nodes, n, count = conf["byzantine"], conf["num_workers"], conf["num_byzantine"]
    if nodes is None:
        return
    outside = [node for node in nodes if node >= n]
    if outside:
        report("byzantine", f"names node {outside[0]}, and nodes are 0 to {n - 1} (num_workers {n})",
               "name worker nodes")
    if len(set(nodes)) < len(nodes):
        report("byzantine", f"is {shown(nodes)}, which names a node twice", "name each once")
    if len(nodes) != count:
        report("byzantine", f"names {len(nodes)} nodes, and num_byzantine is {count}",
               f"write `num_byzantine: {len(nodes)}`, or leave byzantine out to have them drawn by seed")


def _attack(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    attack, algorithm = conf["attack"], conf["algorithm"]
    kind, carried = registry.acts_on(attack), algorithm.get("_attacks_") or []
    if kind == "none":
        return
    if conf["num_byzantine"] == 0:
        report("attack", f"is {attack['_name_']}, and num_byzantine is 0: no node would attack",
               "write `num_byzantine: 1` or more, or `attack: none`")
    derived, n, count = attack.get("_derives_"), conf["num_workers"], conf["num_byzantine"]
    if derived and attack[derived] is None and not 0 < n - count - (n // 2 + 1 - count) < n - count:
        report(f"attack.{derived}", f"is empty, and follows from n = {n} and {count} attackers only where n > 2 and "
               "attackers are at most half", f"write a number as attack.{derived}, or lower num_byzantine")
    if attack.get("_uses_rule_") and not algorithm.get("_rule_"):
        report("attack", f"is {attack['_name_']}, which searches against the rule, and {algorithm['_name_']} has none",
               "choose another attack or algorithm parameter_server")
    if kind not in carried:
        on = ", ".join(carried) or "nothing"
        own = "knowledge" in attack and kind != "batches" and "batches" in carried
        remedy = "set attack.knowledge to own, or " * own + "choose another attack or another algorithm"
        named = attack["_name_"] + " with knowledge own" * (kind == "batches")
        report("attack", f"is {named}, which acts on {kind}; {algorithm['_name_']} carries only "
               f"attacks on {on}", remedy)


def _stand_ins(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    """An attack that searches against the rule and knows no honest rows applies it to its own and f more."""
    attack, rule, pres = conf["attack"], conf["aggregator"], conf["pre_aggregator"]
    if registry.acts_on(attack) != "batches" or not attack.get("_uses_rule_"):
        return
    rows = attack["batches"] + conf["num_byzantine"]
    message, _ = registry.refusal(pres, rule, rows, declared(conf))
    if message:
        least = registry.least_rows(pres, rule, declared(conf)) - conf["num_byzantine"]
        report("attack.batches", f"is {attack['batches']}, too few to try the rule on these and "
               f"{conf['num_byzantine']} attackers' rows: {message}", f"write `batches: {least}` or more")


def _unused(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    algorithm = conf["algorithm"]
    name = algorithm["_name_"]
    if not algorithm.get("_rule_"):
        if conf["aggregator"]["_name_"] != "average":
            report("aggregator", f"is {conf['aggregator']['_name_']}, and {name} uses no rule",
                   "leave it out, or choose algorithm parameter_server")
        if conf["pre_aggregator"]:
            report("pre_aggregator", f"is {registry.names(conf['pre_aggregator'])}, and {name} uses no rule",
                   "leave it out, or choose algorithm parameter_server")
        if conf["quorum"] is not None:
            report("quorum", f"is {conf['quorum']}, and {name} waits for no quorum", "leave it out")
        if conf["deadline"] is not None and algorithm.get("_family_") == "synchronous":
            report("deadline", f"is {conf['deadline']}, and {name} needs every row", "leave it out")
    elif algorithm.get("_family_") == "federated" and conf["quorum"] is not None:
        report("quorum", f"is {conf['quorum']}, and {name} waits for clients_per_round updates",
               "leave it out, and set algorithm.clients_per_round")


def _clients(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    clients, n = conf["algorithm"].get("clients_per_round"), conf["num_workers"]
    if clients is not None and clients > n:
        report("algorithm.clients_per_round", f"is {clients}, and num_workers is {n}",
               f"write at most {n}, or more num_workers")


@dataclass(frozen=True)
class Arrival:
    """Rows that a rule is given at a step, what decides that, and the key that would change it."""

    rows: int
    why: str
    key: str


def arrival(conf: dict[str, Any]) -> Arrival:
    """How many rows the rule sees: the quorum, the round's clients, or all nodes that are not silent."""
    n, f, quorum, algorithm = conf["num_workers"], declared(conf), conf["quorum"], conf["algorithm"]
    if algorithm.get("_family_") == "federated" and "clients_per_round" in algorithm:
        clients = algorithm["clients_per_round"]
        return Arrival(min(clients, n), f"clients_per_round {clients}", "algorithm.clients_per_round")
    if quorum == "n-f":
        return Arrival(n - f, f"quorum n-f, {n} - {f}", "num_workers")
    if quorum is not None:
        return Arrival(quorum, f"quorum {quorum}", "quorum")
    silent = _silent(conf)
    return Arrival(n - silent, f"num_workers {n}" + f" less {silent} silent" * bool(silent), "num_workers")


def _silent(conf: dict[str, Any]) -> int:
    return conf["num_byzantine"] if conf["attack"].get("_acts_on_") == "nothing_sent" else 0


def _needs(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    """The rule's bound n >= a f + b, n being the rows that arrive; and whether the quorum can be reached."""
    n, f, rule = conf["num_workers"], declared(conf), conf["aggregator"]
    if not conf["algorithm"].get("_rule_") or f >= n:
        return
    comes = arrival(conf)
    if comes.rows > n:
        report("quorum", f"is {comes.rows}, and num_workers is {n}", f"write at most {n}, or n-f")
        return
    live = n - _silent(conf)
    if conf["quorum"] is not None and comes.rows > live and conf["deadline"] is None:
        report("quorum", f"is {shown(conf['quorum'])}, {comes.rows} rows, and {n - live} of {n} nodes send "
               f"nothing (attack {conf['attack']['_name_']}): it is never reached",
               f"write at most {live}, or set a deadline")
    pres, f = conf["pre_aggregator"], expected(conf, f, comes.rows)
    message, _ = registry.refusal(pres, rule, comes.rows, f)
    if not message:
        return
    least = registry.least_rows(pres, rule, f)
    if comes.rows >= least:  # a parameter, not the number of rows
        report("aggregator", message, registry.refusal(pres, rule, comes.rows, f)[1])
        return
    missing = least - comes.rows
    enough = conf[comes.key] + missing if comes.key in conf else least
    remedy = f"write `{comes.key}: {enough}` or more"
    fits = []
    for lower in range(declared(conf)):
        rows = _rows(conf, comes, declared(conf) - lower)
        if not registry.refusal(pres, rule, rows, expected(conf, lower, rows))[0]:
            fits.append(lower)
    if fits:
        remedy = f"as it is, f can be at most {fits[-1]}; or {remedy}"
    key = next((one for one in ("f", "num_byzantine") if one in spec.job_conf), "aggregator")
    fault = "is" if key == "aggregator" else "is too large for"
    composed = registry.names([*pres, rule])
    needs = registry.bound(rule) if composed == rule["_name_"] and not registry.inner(rule) else ""
    needs = f"{needs}: {least}" if needs else str(least)
    part = f", the part of {declared(conf)} in {comes.rows} of {n}" if f < declared(conf) else ""
    report(key, f"{fault} {composed}, which needs {needs} rows for f = {f}{part}, and "
           f"{comes.rows} arrive ({comes.why})", remedy)


def _rows(conf: dict[str, Any], comes: Arrival, less: int) -> int:
    """How many rows would arrive with a smaller f: with the quorum n-f, as many more."""
    return comes.rows + less * (conf["quorum"] == "n-f")


def _places(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    message, remedy = registry.distrust(conf["pre_aggregator"], conf["aggregator"])
    if message and conf["algorithm"].get("_rule_"):
        report("pre_aggregator", message, remedy)


def _trust(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    """The node whose row a rule trusts is honest, and its row always there."""
    node, n = registry.trusted(conf["aggregator"]), conf["num_workers"]
    if node is None or not conf["algorithm"].get("_rule_") or node >= n or conf["num_byzantine"] >= n:
        return
    trusting = registry.trusts(conf["aggregator"])["_name_"]
    says = f"is {registry.names([conf['aggregator']])}, and {trusting} trusts the row of node {node}"
    if conf["algorithm"].get("_family_") == "federated":
        if arrival(conf).rows < n:
            report("aggregator", f"{says}, which is not among every round's clients",
                   "choose a rule that trusts no row")
    elif conf["quorum"] is not None or conf["deadline"] is not None:
        key = "quorum" if conf["quorum"] is not None else "deadline"
        report("aggregator", f"{says}, which with a {key} may come too late",
               f"leave {key} out, or choose a rule that trusts no row")
    from kuiper import random

    attackers = conf["byzantine"]
    if attackers is None:
        attackers = random.chosen(conf["seed"], "byzantine", n, conf["num_byzantine"])
    if node in attackers:
        honest = next(one for one in range(n) if one not in attackers)
        drawn = "" if conf["byzantine"] is not None else f", drawn with seed {conf['seed']}"
        report("aggregator", f"{says}, which is Byzantine{drawn}",
               f"write `reference: {honest}` for {trusting}, an honest node")


def _clock(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    if conf["clock"] != "virtual" or simulate:
        return
    if conf["algorithm"].get("_peers_"):
        report("clock", f"is virtual, and processes keep it only for a server with workers or clients; "
               f"{conf['algorithm']['_name_']} is peer-to-peer", "write `clock: auto`, or run it with --simulate")
    elif conf["transport"] == "collective":
        report("clock", "is virtual, and transport collective has no time but the real one",
               "write `transport: mesh`")


def _pool(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    if conf["pool"] is not None and not simulate:
        report("pool", f"is {conf['pool']}, and only a simulation has one: processes are what worker_ips says",
               "leave it out, or run it with --simulate")


def _ports(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    if conf["ports"] is not None:
        low, high = (int(port) for port in conf["ports"].split("-"))
        if not 1 <= low <= high <= 65535:
            message = f"is {conf['ports']!r}, which is no range within 1-65535"
            report("ports", message, "write a range such as '29600-29650'")


def _processes(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    processes = sum(worker.processes for worker in spec.worker_ips)
    if not simulate and processes > conf["num_workers"]:
        report("num_workers", f"is {conf['num_workers']}, and worker_ips start {processes} processes: "
               "some would have no node", "start fewer processes, or more num_workers")


def _collective(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    """torch.distributed waits for every row of every process, and knows nobody by a certificate."""
    if conf["transport"] != "collective":
        return
    algorithm, attack = conf["algorithm"], conf["attack"]
    mesh = "or write `transport: mesh`"
    if algorithm.get("_family_") != "synchronous":
        report("transport", "is collective, which carries synchronous algorithms only; "
               f"{algorithm['_name_']} is {algorithm.get('_family_')}", "write `transport: mesh`")
    if algorithm.get("_rule_"):
        for key in ("quorum", "deadline"):
            if conf[key] is not None:
                report(key, f"is {conf[key]}, and transport collective waits for every row",
                       f"leave it out, {mesh}")
    if attack.get("_acts_on_") == "nothing_sent":
        report("attack", f"is {attack['_name_']}, and transport collective waits for every row for ever",
               f"choose an attack that sends rows, {mesh}")
    for key in ("tolerate", "retry"):
        if spec.on_failure.get(key):
            report("transport", "is collective, whose group ends with the first process that is lost, and "
                   f"on_failure says {key}: {spec.on_failure[key]}", f"leave {key} out, {mesh}")
    if conf["security"] == "tls" and "security" in spec.job_conf:
        report("security", "is tls, and transport collective moves rows unencrypted and unauthenticated "
               "(only the mesh that watches over it has TLS)", f"leave it out, {mesh}")


def _retry(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    if conf["algorithm"].get("_peers_") and spec.on_failure["retry"] and not simulate:
        name = conf["algorithm"]["_name_"]
        report("algorithm", f"is {name}, whose peers cannot join again in this version, and on_failure.retry "
               f"is {spec.on_failure['retry']}", "leave on_failure.retry out; `resume` goes on after a failure")


def _buffers(conf: dict[str, Any], spec: Spec, simulate: bool, report: Report) -> None:
    """Statistics of a node's own mean something only where its own model is evaluated."""
    algorithm = conf["algorithm"]
    if conf["buffers"] != "local" or algorithm.get("_family_") == "gossip":
        return
    reason = ("whose peers all hold one model" if algorithm.get("_peers_") else
              "whose server evaluates, and a worker's own statistics never reach it")
    report("buffers", f"is local, and the algorithm is {algorithm['_name_']}, {reason}",
           "write `buffers: aggregate`, or `reestimate`; or choose a gossip algorithm")
