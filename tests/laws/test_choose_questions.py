"""`ratoon choose scarce|allocate|rate|mixture|transfer` and the goals, on planted tables whose truth is known."""

import csv
import itertools
import json

import numpy as np
import pytest

from ratoon import cli
from ratoon.commands_laws import as_json
from ratoon.laws.equations.almr import Surface
from ratoon.laws.equations.chinchilla import Chinchilla
from ratoon.laws.equations.crossdomain import CrossDomain
from ratoon.laws.equations.dcpt import DCPT
from ratoon.laws.equations.dynamics import Dynamics, sums
from ratoon.laws.equations.loglinear import LogLinear
from ratoon.laws.equations.repetition import effective_tokens

GENERAL = DCPT(E=1.9, A=0.3, a=0.3, B=0.05, n=0.5, b=0.3, C=0.25, e=0.1, c=0.4)
DOMAIN = DCPT(E=0.6, A=0.3, a=0.3, B=0.5, n=0.5, b=0.5, C=1.0, e=0.02, c=0.3)
SIZES, RATIOS, HORIZONS = (0.5e9, 1.8e9, 4e9), (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.95), (1e9, 2e9, 4e9, 8e9)
N, FINE = 1.8e9, np.linspace(0.1, 0.95, 8501)
PARENT = ["--parent", "general=2.7,domain=2.6"]
FAST = "bootstrap=50"


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("questions")


@pytest.fixture(autouse=True)
def elsewhere(folder, monkeypatch):
    """A folder with no project in it or above."""
    monkeypatch.chdir(folder)


def planted(sizes):
    return [
        {
            "run": f"{params:g}-{share}-{tokens:g}",
            "group": f"{params:g}-{share}",
            "params": int(params),
            "tokens": int(tokens),
            "domain_share": share,
            "general_loss": float(GENERAL.loss(params, tokens, 1 - share)),
            "domain_loss": float(DOMAIN.loss(params, tokens, share)),
        }
        for params, share, tokens in itertools.product(sizes, RATIOS, HORIZONS)
    ]


@pytest.fixture(scope="module")
def runs(folder):
    """Of the target's size alone."""
    return write(folder / "runs.csv", planted((N,)))


@pytest.fixture(scope="module")
def sizes(folder):
    return write(folder / "sizes.csv", planted(SIZES))


def asked(capsys, *words, code=cli.DONE):
    assert cli.main(list(words)) == code
    return capsys.readouterr()


def found(capsys, *words):
    return json.loads(asked(capsys, *words, "--json").out)


def told(capsys, *words):
    said = asked(capsys, *words).out
    assert max(map(len, said.splitlines())) <= 80
    assert said.isascii()
    return said


# ---------------------------------------------------------------- the share: goals, text, a further run


def share(*words):
    return ["choose", *words, "--target", f"N={N:g},D=10B", "--law", "dcpt", "--set", FAST, *PARENT]


def test_a_weighted_goal_is_met_where_brute_force_on_the_truth_finds_it(runs, capsys):
    for weight in ("0.4", "60%"):
        part = 0.4 if weight == "0.4" else 0.6
        losses = part * GENERAL.loss(N, 10e9, 1 - FINE) / 2.7 + (1 - part) * DOMAIN.loss(N, 10e9, FINE) / 2.6
        choice = found(capsys, *share(runs), "--goal", "weighted", "--weight", weight)
        assert choice["share"] == pytest.approx(FINE[losses.argmin()], abs=0.011)
        assert choice["best"]["low"] <= choice["share"] <= choice["best"]["high"]


def test_domain_text_there_is_caps_the_share_of_a_run_of_fixed_length(runs, capsys):
    arguments = [*share(runs), "--goal", "weighted", "--weight", "0", "--domain-tokens", "100M"]
    choice = found(capsys, *arguments)
    assert (choice["share"], choice["reason"]) == (pytest.approx(16 * 0.1 / 10), "limited by domain data")
    arguments[arguments.index(FAST)] = f"{FAST},domain_epochs=20"
    assert found(capsys, *arguments)["share"] == pytest.approx(20 * 0.1 / 10)


def test_regret_and_the_run_that_would_narrow_the_choice_are_told(runs, capsys):
    arguments = [*share(runs), "--tolerance", "2%"]
    choice = found(capsys, *arguments)
    assert choice["regret"] >= 0
    assert choice["further"]["tokens"] > 0
    assert choice["further"]["width_after"] <= choice["further"]["width_now"]
    said = told(capsys, *arguments)
    assert "regret" in said
    assert "further run" in said
    assert choice["further"]["reason"].split()[0] in said


def test_fit_tells_what_choose_tells(runs, capsys):
    words = ["--goal", "weighted", "--tolerance", "2%"]
    choice = found(capsys, *share(runs), *words)
    assert found(capsys, "fit", *share(runs)[1:], *words)["choice"] == choice


def test_the_page_of_a_weighted_choice_shows_the_best_share_and_no_ceiling_s(runs, folder, capsys):
    out = folder / "weighted"
    asked(capsys, "fit", *share(runs)[1:], "--goal", "weighted", "--out", str(out))
    html = (out / "laws.html").read_text(encoding="utf-8")
    choice = json.loads((out / "result.json").read_text(encoding="utf-8"))["choice"]
    assert "Best share by the weighted goal" in html
    assert "Largest share within" not in html
    assert f"{choice['regret']:.3g}" in html


# ---------------------------------------------------------------- text that runs out


def scarce(runs, unique, epochs, *words):
    settings = f"{FAST},domain_epochs={epochs}"
    return ["choose", "scarce", runs, "--domain-tokens", unique, "--law", "dcpt", "--set", settings, *words]


@pytest.mark.parametrize(("unique", "epochs"), [("1B", 1), ("300M", 4)])
def test_scarce_text_is_spent_where_brute_force_on_the_truth_spends_it(runs, unique, epochs, capsys):
    U = {"1B": 1e9, "300M": 3e8}[unique]
    fresh = effective_tokens(U, epochs * U) / FINE
    truth = float(FINE[DOMAIN.loss(N, fresh, FINE).argmin()])
    choice = found(capsys, *scarce(runs, unique, epochs, "--target", f"N={N:g}", "--no-ceiling"))
    assert choice["share"]["value"] == pytest.approx(truth, abs=0.011)
    assert choice["tokens"]["value"] == pytest.approx(epochs * U / choice["share"]["value"], rel=1e-3)
    assert choice["epochs"] == pytest.approx(epochs)
    assert choice["share"]["value"] in [one["share"] for one in choice["curve"]]
    assert min(one["domain"]["value"] for one in choice["curve"]) == choice["domain"]["value"]


def test_scarce_text_keeps_general_loss_under_its_ceiling_and_the_run_within_d(runs, capsys):
    target = ["--target", f"N={N:g},D=2B"]
    free = found(capsys, *scarce(runs, "1B", 1, *target, "--no-ceiling"))
    assert free["tokens"]["value"] <= 2e9
    parent = float(GENERAL.loss(N, 1.2e9, 0.7)) / 1.02
    bound = ["--tolerance", "2%", "--parent", f"general={parent}"]
    kept = found(capsys, *scarce(runs, "1B", 1, *target, *bound))
    assert kept["share"]["value"] < free["share"]["value"]
    assert kept["general"]["value"] <= parent * 1.02
    said = told(capsys, *scarce(runs, "1B", 1, *target, *bound))
    assert "limited by general tolerance" in said
    assert "under" in said
    assert sum(line.startswith(">") for line in said.splitlines()) == 1


# ---------------------------------------------------------------- compute


def test_compute_is_split_as_the_closed_form_splits_it(sizes, capsys):
    question = ["choose", "allocate", sizes, "--flops", "1e20", "--share", "50%", "--set", FAST]
    E = DOMAIN.E + DOMAIN.C / (0.5 + DOMAIN.e) ** DOMAIN.c
    params, tokens = Chinchilla(E, DOMAIN.A, DOMAIN.a, DOMAIN.B * 0.5**DOMAIN.n, DOMAIN.b).allocate(1e20)
    split = found(capsys, *question)
    assert split["params"]["value"] == pytest.approx(float(params), rel=5e-3)
    assert split["tokens"]["value"] == pytest.approx(float(tokens), rel=5e-3)
    assert all(6 * one["params"] * one["tokens"] == pytest.approx(1e20) for one in split["curve"])
    assert min(one["loss"]["value"] for one in split["curve"]) == split["loss"]["value"]
    assert "parameters" in told(capsys, *question)
    general = found(capsys, *question, "--loss", "general")
    assert general["params"]["value"] != split["params"]["value"]


# ---------------------------------------------------------------- learning rate

OLD = Surface(b0=2.6, br=0.25, by=0.02, brr=0.3, bry=0.05, byy=0.02, lr0=3e-4)
NEW = Surface(b0=2.2, br=-0.9, by=-0.06, brr=0.6, bry=0.04, byy=0.05, lr0=3e-4)


@pytest.fixture(scope="module")
def crossed(folder):
    rows = [
        {
            "run": f"{r}-{lr:g}",
            "params": 10**9,
            "tokens": 10**9,
            "domain_share": r,
            "peak_lr": lr,
            "general_loss": float(OLD.loss(r, lr)),
            "domain_loss": float(NEW.loss(r, lr)),
        }
        for r, lr in itertools.product((0.1, 0.3, 0.5, 0.7, 0.9), (3e-5, 1e-4, 3e-4, 1e-3, 3e-3))
    ]
    return write(folder / "crossed.csv", rows)


def test_share_and_rate_of_two_planted_surfaces_are_those_of_a_fine_grid(crossed, capsys):
    question = ["choose", "rate", crossed, "--tolerance", "4%", *PARENT, "--set", FAST]
    choice = found(capsys, *question)
    r, lr = np.meshgrid(np.linspace(0.1, 0.9, 801), np.geomspace(3e-5, 3e-3, 801), indexing="ij")
    under = OLD.loss(r, lr) <= 2.7 * 1.04
    at = np.unravel_index(np.where(under, NEW.loss(r, lr), np.inf).argmin(), r.shape)
    assert choice["share"]["value"] == pytest.approx(r[at], abs=0.01)
    assert choice["rate"]["value"] == pytest.approx(lr[at], rel=0.05)
    assert [one["rate"] for one in choice["curve"]] == [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]
    assert min(one["domain"] for one in choice["curve"]) >= choice["domain"]["value"] - 1e-3
    assert "best share" in told(capsys, *question)


# ---------------------------------------------------------------- schedule

ON_OLD = Dynamics(L0=3.057, A=0.49, alpha=0.5, C1=0.0, C2=0.298, B=0.366, E=28, beta=0.189, a2=2.0)
ON_NEW = Dynamics(L0=3.024, A=0.412, alpha=0.5, C1=0.0, C2=0.324, B=-0.666, E=500, beta=0.146, a2=2.0)
BEFORE = sums(np.concatenate([np.full(3600, 2e-3), np.linspace(2e-3, 0, 400)])).end
PEAKS, STEPS = (2e-5, 1e-4, 5e-4), (400, 1600)


@pytest.fixture(scope="module")
def checkpoints(folder):
    rows = []
    shapes = {"constant": lambda x: np.ones_like(x), "linear": lambda x: 1 - x}
    for (shape, decay), peak, share in itertools.product(shapes.items(), (5e-5, 3e-4), (0.2, 0.5, 1.0)):
        stage = sums(peak * decay(np.linspace(0, 1, 1600)))
        for step in (0, *range(99, 1600, 250)):
            done = (0.0, 0.0) if step == 0 else (float(stage.S1[step]), float(stage.S2[step]))
            at = dict(zip(("S1pt", "S2pt", "S1cpt", "S2cpt"), (float(BEFORE.S1), float(BEFORE.S2), *done), strict=True))
            losses = {
                f"{k}_loss": float(law.loss(**at, new=share)) for k, law in (("general", ON_OLD), ("domain", ON_NEW))
            }
            rows.append({"run": f"{shape}-{peak}-{share}", "domain_share": share, **at, **losses})
    return write(folder / "checkpoints.csv", rows)


def test_the_stage_of_planted_dynamics_is_that_of_brute_force_on_the_truth(checkpoints, capsys):
    question = ["choose", "stage", checkpoints, "--peaks", "2e-5,1e-4,5e-4", "--steps", "400,1600", "--tolerance", "3%"]
    question += ["--schedules", "constant,cosine", "--set", FAST]
    choice = found(capsys, *question)
    start = float(ON_OLD.loss(*BEFORE, 0.0, 0.0))
    best = (np.inf, None)
    shapes = {"constant": lambda x: np.ones_like(x), "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2}
    for (shape, decay), peak, steps in itertools.product(shapes.items(), PEAKS, STEPS):
        end = sums(peak * decay(np.arange(1, steps + 1) / steps)).end
        shares = np.linspace(0.2, 1, 81)
        general, domain = (law.loss(*BEFORE, *end, shares) for law in (ON_OLD, ON_NEW))
        domain = np.where(general <= 1.03 * start, domain, np.inf)
        if domain.min() < best[0]:
            best = float(domain.min()), (shape, peak, steps, float(shares[domain.argmin()]))
    stage = choice["best"]
    assert (stage["schedule"], stage["peak"]["value"], stage["steps"]["value"]) == best[1][:3]
    assert stage["share"]["value"] == pytest.approx(best[1][3], abs=0.02)
    assert choice["parent_domain"] + stage["domain"] == pytest.approx(best[0], abs=5e-3)
    assert max(choice["unseen_error"].values()) < 5e-3
    assert "schedule" in told(capsys, *question)


@pytest.fixture(scope="module")
def grown(folder, checkpoints):
    """Checkpoints of three sizes, each of a parent of its own."""
    with open(checkpoints, newline="") as file:
        rows = list(csv.DictReader(file))
    moved = [
        {
            **row,
            "params": size,
            "run": f"{size:g} {row['run']}",
            "S1pt": float(row["S1pt"]) * stretch,
            **{name: float(row[name]) + shift for name in ("general_loss", "domain_loss")},
        }
        for size, shift, stretch in ((1e8, 0.1, 1.0), (2e8, 0.05, 1.5), (4e8, 0.0, 2.0))
        for row in rows
    ]
    return write(folder / "grown.csv", moved)


def test_the_parent_of_a_stage_is_that_of_the_size_asked_about(grown, capsys):
    question = ["choose", "stage", grown, "--peaks", "1e-4", "--steps", "400", "--schedules", "constant", "--set", FAST]
    start = float(ON_OLD.loss(*BEFORE, 0.0, 0.0))
    for size, shift, stretch in (("1e8", 0.1, 1.0), ("4e8", 0.0, 2.0)):
        choice = found(capsys, *question, "--target", f"N={size}", "--tolerance", "20%")
        assert choice["parent_general"] == pytest.approx(start + shift, abs=1e-6)
        assert choice["best"]["parent"].startswith(f"S1pt={float(BEFORE.S1) * stretch:.4g},")
    said = asked(capsys, *question, "--target", "N=3e8", code=cli.WRONG).err
    assert "no general loss of the parent of 300,000,000 parameters; add a row with S1cpt 0, or pass --pa" in said


@pytest.mark.parametrize(
    ("parent", "letter"),
    [
        ("general=22,domain=20", "parent_general is 22, worse than guessing from any vocabulary"),
        ("general=nan", "parent_general is nan; expected its held-out loss in nats per token"),
        ("general=-3", "parent_general is -3"),
        ("general=0,domain=2", "parent_general is 0"),
        ("general={in_bits}", "1/ln 2 times what its own rows say"),
    ],
)
@pytest.mark.parametrize("goal", ["ceiling", "weighted"])
def test_a_parent_of_a_stage_in_another_unit_is_refused_with_the_conversion(checkpoints, parent, letter, goal, capsys):
    told_ = parent.format(in_bits=float(ON_OLD.loss(*BEFORE, 0.0, 0.0)) / np.log(2))
    question = ["choose", "stage", checkpoints, "--peaks", "1e-4", "--steps", "400", "--goal", goal, "--set", FAST]
    assert letter in asked(capsys, *question, "--parent", told_, code=cli.WRONG).err


def test_stages_far_beyond_those_run_are_refused(checkpoints, capsys):
    question = ["choose", "stage", checkpoints, "--steps", "1600", "--set", FAST, "--tolerance", "50%"]
    said = asked(capsys, *question, "--peaks", "1", code=cli.WRONG).err
    assert "S1cpt of the stages looked at is up to 1.6e+03," in said
    assert "beyond 10 times no law has been checked" in said
    said = asked(capsys, *question, "--peaks", "1", "--schedules", "cosine", "--extrapolate", code=cli.WRONG).err
    assert "no loss is at or below 0" in said
    said = told(capsys, *question, "--peaks", "4e-3", "--schedules", "constant", "--extrapolate", "--goal", "weighted")
    assert "extrapolates beyond 10 times the runs' S1cpt" in " ".join(said.split())


# ---------------------------------------------------------------- many domains

DOMAINS, TEXTS = ("mix_web", "mix_code", "mix_books"), ("loss_prose", "loss_python")
LAWS = (LogLinear(np.log(2.0), (-1.6, 0.4, -0.9)), LogLinear(np.log(1.8), (0.5, -1.8, 0.3)))


@pytest.fixture(scope="module")
def mixtures(folder):
    random = np.random.default_rng(0)
    h = random.dirichlet(np.ones(3), 24)
    losses = np.stack([law.loss(h) for law in LAWS], axis=1) + random.normal(0, 1e-3, (24, 2))
    named = [dict(zip((*DOMAINS, *TEXTS), (*row, *loss), strict=True)) for row, loss in zip(h, losses, strict=True)]
    return write(folder / "mixtures.csv", [{"run": str(k), "tokens": 10**9, **row} for k, row in enumerate(named)])


def test_a_planted_mixture_is_found_within_its_limits(mixtures, capsys):
    question = ["choose", "mixture", mixtures, "--columns", "h=mix_*,loss=loss_*", "--law", "loglinear"]
    limits = ["--maximum", "mix_code=0.4", "--weights", "loss_prose=1,loss_python=2"]
    choice = found(capsys, *question, *limits)
    axis = np.linspace(0, 1, 201)
    h = np.array([(a, b, 1 - a - b) for a, b in itertools.product(axis, axis) if a + b <= 1 and b <= 0.4])
    best = h[(LAWS[0].loss(h) + 2 * LAWS[1].loss(h)).argmin()]
    assert [choice["shares"][name]["value"] for name in DOMAINS] == pytest.approx(best, abs=0.02)
    assert choice["proven"]


def test_mixtures_keep_ceilings_and_what_text_there_is_and_say_so(mixtures, capsys):
    question = ["choose", "mixture", mixtures, "--columns", "h=mix_*,loss=loss_*", "--law", "loglinear"]
    goal = ["--weights", "loss_python=1", "--ceilings", "loss_prose=2.4"]
    text = ["--unique", "mix_code=1B", "--target", "D=10B", "--epochs", "2"]
    said = told(capsys, *question, *goal, *text)
    rows = dict(line.split(maxsplit=1) for line in said.splitlines() if line.startswith(("mix_", "loss_")))
    assert float(rows["mix_code"].split()[0]) == pytest.approx(0.2)
    assert "repetition" in rows["mix_code"]
    assert float(rows["loss_prose"].split()[0]) <= 2.4 + 1e-4


# ---------------------------------------------------------------- a new domain

ACROSS = CrossDomain(E=1.2, A=0.05, a=0.34, B=0.02, n=0.6, b=0.4, C=0.15, e=0.05, c=0.4, F=0.8, m=1.2, w1=1.6, w2=3.0)
FEATURES = {"code": (1.3, 0.30), "law": (2.0, 0.22), "math": (1.6, 0.16), "music": (2.7, 0.12), "medical": (2.2, 0.26)}


@pytest.fixture(scope="module")
def swept(folder):
    rows = [
        {
            "corpus": name,
            "params": n,
            "tokens": d,
            "domain_share": r,
            "loss": float(ACROSS.loss(n, d, r, *FEATURES[name])),
        }
        for name in ("code", "law", "math", "music")
        for n, d, r in itertools.product((5e8, 1.8e9, 4e9), (2e8, 1e9, 5e9, 2e10), (0.1, 0.33, 0.67, 1.0))
    ]
    probes = [
        {"corpus": name, "tokens": 5e6 * k, "loss": k1 - k2 * (k - 1) * 5e-3}
        for name, (k1, k2) in FEATURES.items()
        for k in (1, 2, 3, 4)
    ]
    return write(folder / "swept.csv", rows), write(folder / "probes.csv", probes)


def test_a_domain_nobody_swept_is_foretold_from_its_probe(swept, capsys):
    columns = ["--columns", "evaluated=corpus,domain=loss"]
    question = ["choose", "transfer", swept[0], "--probes", swept[1], *columns, "--target", "N=1.8e9,D=10B"]
    answer = found(capsys, *question, "--new", "medical")
    truth = ACROSS.loss(1.8e9, 10e9, np.array(answer["shares"]), *FEATURES["medical"])
    assert answer["losses"] == pytest.approx(truth, rel=0.01)
    assert answer["known"] == ["code", "law", "math", "music"]
    for told_, loss, interval in zip(truth, answer["losses"], answer["intervals"], strict=True):
        assert interval["low"] <= min(told_, loss)
        assert interval["high"] >= max(told_, loss)
    said = told(capsys, *question, "--new", "medical")
    assert "each foreseen from the others" in said
    assert "its share    loss" in said
    assert "90%" in said
    missing = asked(capsys, *question, "--new", "medicine", code=cli.WRONG).err
    assert "no probe of 'medicine'; did you mean 'medical'?" in missing


def test_a_domain_nobody_swept_is_not_foretold_far_from_the_runs_unasked(swept, capsys):
    columns = ["--columns", "evaluated=corpus,domain=loss", "--new", "medical"]
    question = ["choose", "transfer", swept[0], "--probes", swept[1], *columns, "--target", "N=1.8e9,D=1e15"]
    said = asked(capsys, *question, code=cli.WRONG).err
    assert "tokens are 50000.0 times the longest run (20,000,000,000)" in said
    answer = found(capsys, *question, "--extrapolate")
    assert answer["warnings"] == ["extrapolates beyond 10 times the longest run (20,000,000,000 tokens)"]


def test_rows_that_read_none_of_a_new_domain_do_not_move_its_level(swept, folder, capsys):
    with open(swept[0], newline="") as file:
        rows = list(csv.DictReader(file))
    own = [
        {"corpus": "medical", "params": 5e8, "tokens": d, "domain_share": r, "loss": loss}
        for d in (2e8, 1e9)
        for r, loss in [(r, float(ACROSS.loss(5e8, d, r, *FEATURES["medical"]))) for r in (0.33, 0.67)] + [(0.0, 9.0)]
    ]
    columns = ["--columns", "evaluated=corpus,domain=loss", "--new", "medical", "--probes", swept[1]]
    read = write(folder / "read.csv", [*rows, *(row for row in own if row["domain_share"] > 0)])
    whole = write(folder / "whole.csv", [*rows, *own])
    without, beside = (found(capsys, "choose", "transfer", path, *columns) for path in (read, whole))
    assert beside == without
    assert beside["own_runs"] == 4


def test_shares_of_a_rare_domain_are_told_as_they_are(swept, folder, capsys):
    with open(swept[0], newline="") as file:
        rows = [{**row, "domain_share": 0.04 * float(row["domain_share"])} for row in csv.DictReader(file)]
    rare = write(folder / "rare.csv", rows)
    columns = ["--columns", "evaluated=corpus,domain=loss", "--new", "medical", "--probes", swept[1]]
    assert found(capsys, "choose", "transfer", rare, *columns)["shares"] == pytest.approx(np.linspace(0.004, 0.04, 9))
    assert "\n    0.004" in told(capsys, "choose", "transfer", rare, *columns)


# ---------------------------------------------------------------- what cannot be asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["choose", "RUNS", "--goal", "weighted", "--weight", "2"],
            "general_weight: Input should be less than or equal",
        ),
        (["choose", "RUNS", "--weight", "0.3"], "only the weighted goal has one, the goal is ceiling"),
        (["choose", "RUNS", "--law", "bimix"], "law: Input should be 'auto', 'combined'"),
        (["choose", "RUNS", "--set", "confidense=0.9"], "no key 'confidense'; did you mean 'confidence'?"),
        (
            ["choose", "RUNS", "--set", "confidence"],
            "--set: 'confidence' is not NAME=VALUE; for example confidence=0.95",
        ),
        (["choose", "RUNS", "--domain-tokens", "many"], "--domain-tokens: 'many' is no count; for example 20M"),
        (["choose", "RUNS", *PARENT, "--target", "D=1e12"], "choose.extrapolate to true (--extrapolate)"),
        (["choose", "allocate", "RUNS", "--flops", "lots", "--share", "0.5"], "'lots' is no number of operations"),
        (["choose", "allocate", "RUNS", "--flops", "1e20", "--share", "50"], "--share: '50' is outside 0..1"),
        (["choose", "scarce", "RUNS", "--domain-tokens", "1B"], "the table has no general loss of the parent"),
        (["choose", "rate", "RUNS", *PARENT], "no peak learning rate; name its column, --columns lr=COLUMN"),
        (
            ["choose", "stage", "RUNS", "--peaks", "1e-4", "--steps", "99"],
            "there is no S1pt, no S2pt, no S1cpt, no S2cpt",
        ),
        (
            ["choose", "stage", "RUNS", "--peaks", "high", "--steps", "99"],
            "--peaks: 'high' is no list of numbers above 0",
        ),
        (["fit", "RUNS", "--target", "N=nan"], "--target: 'N=nan' is not N=... or D=..."),
        (["choose", "RUNS", *PARENT, "--target", "D=inf"], "--target: 'D=inf' is not N=... or D=..."),
        (["fit", "RUNS", "--target", "share=7"], "--target: 'share=7': a share is in 0..1; for percent, share=7%"),
        (["fit", "RUNS", "--target", "U=-3"], "--target: 'U=-3': U is a plain count above 0"),
        (["choose", "RUNS", *PARENT, "--target", "share=0.5"], "to take one as it is, --set ratio=..."),
        (["fit", "RUNS", "--domain-tokens", "1M"], "limits the share, and none is chosen here; add --tolerance"),
        (["choose", "mixture", "RUNS", "--epochs", "2"], "--epochs 2.0: without --unique it changes nothing"),
        (["choose", "mixture", "RUNS", "--reference", "web=1"], "--reference web=1: without --pull it changes nothing"),
        (["choose", "mixture", "RUNS"], "no mixture; name the columns of its shares"),
        (["choose", "transfer", "RUNS", "--probes", "RUNS", "--new", "x"], "which column names the domain of a row?"),
    ],
)
def test_what_cannot_be_asked_gets_a_letter_and_exit_code_2(words, message, runs, capsys):
    said = asked(capsys, *[runs if word == "RUNS" else word for word in words], code=cli.WRONG).err
    assert message in said
    assert "Traceback" not in said


def test_of_a_parent_only_the_loss_that_was_not_told_is_looked_for(folder, capsys):
    parent = {"run": "p", "group": "p", "params": int(N), "tokens": 0, "domain_share": 0}
    table = write(folder / "parent.csv", [*planted((N,)), {**parent, "general_loss": "", "domain_loss": 2.6}])
    words = ["choose", table, "--set", FAST]
    assert "no general loss of the parent" in asked(capsys, *words, code=cli.WRONG).err
    assert found(capsys, *words, "--parent-general", "2.7")["parent_domain_nats"] == 2.6


def test_too_few_shares_are_counted_as_the_table_has_them(folder, capsys):
    few = [row for row in planted((N,)) if row["domain_share"] in (0.1, 0.95)]
    said = asked(capsys, "choose", write(folder / "few.csv", few), *PARENT, code=cli.WRONG).err
    assert "all 8 runs have domain shares 0.1 and 0.95, which cannot show how loss bends" in said


def test_a_share_that_was_fixed_beyond_its_text_is_warned_of(runs, capsys):
    words = ["choose", runs, *PARENT, "--target", "D=8B", "--set", f"ratio=0.9,{FAST}", "--domain-tokens", "1M"]
    answer = found(capsys, *words)
    assert answer["share"] == 0.9
    assert any("1,000,000 domain tokens would be read 7,200 times" in line for line in answer["warnings"])
    assert any("they last for a share of 0.20%" in line for line in answer["warnings"])


def test_compute_that_wants_a_larger_model_than_allowed_says_so(sizes, capsys):
    words = ["choose", "allocate", sizes, "--share", "0.33", "--set", f"far_size=1.5,{FAST}"]
    assert found(capsys, *words, "--flops", "2e21")["reason"].startswith("limited: the largest size allowed (far_size")


def test_json_has_null_for_what_is_not_finite():
    assert json.loads(as_json({"a": float("nan"), "b": [float("inf"), 1.5]})) == {"a": None, "b": [None, 1.5]}


def test_a_domain_that_no_run_had_gets_nothing_and_a_note(folder, capsys):
    random = np.random.default_rng(0)
    rows = [
        {"mix_web": 1 - x, "mix_code": x, "mix_books": 0.0, "loss": 2 + float(np.exp(-2 * x)) + random.normal(0, 1e-3)}
        for x in np.linspace(0.05, 0.95, 16)
    ]
    table = write(folder / "never.csv", rows)
    answer = found(capsys, "choose", "mixture", table, "--columns", "h=mix_*,loss=loss", "--law", "loglinear")
    assert set(answer["shares"]) == {"mix_web", "mix_code"}
    assert any("no run had any of mix_books: left out, with a share of 0" in line for line in answer["warnings"])


def test_a_misspelt_question_is_answered_with_the_one_that_was_meant(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["choose", "sacrce"])
    assert end.value.code == cli.WRONG
    assert "no table and no question 'sacrce'; did you mean 'scarce'?" in capsys.readouterr().err


@pytest.mark.parametrize("question", ["scarce", "allocate", "rate", "stage", "mixture", "transfer"])
def test_every_question_has_help_and_choose_names_it(question, capsys):
    for words in (["choose", "--help"], ["choose", question, "--help"]):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0
        said = capsys.readouterr().out
        assert question in said
        assert max(map(len, said.splitlines())) <= 112
