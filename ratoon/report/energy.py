"""Energy and cost of a target run, from its wall time.

    energy [Wh] = hours x devices x power       cost = hours x devices x price       carbon [g] = kWh x carbon

Power, price and carbon are what train.budget declares. Where no power is, one is assumed, and that is said; carbon and
cost are never assumed.
"""

from typing import NamedTuple

from ratoon.records import Refresh
from ratoon.report import wording
from ratoon.report.beside import Beside

ASSUMED_WATTS = {"cuda": 700.0, "cpu": 100.0, "auto": 100.0}  # of a large GPU at its limit; of a busy server's share


class Spent(NamedTuple):
    seconds: float
    devices: int
    watts: float
    declared: bool  # the power is
    watt_hours: float
    grams: float | None
    money: float | None


def spent(refresh: Refresh, beside: Beside) -> Spent | None:
    """Of the training of the target run alone; None where its time was not measured."""
    seconds = beside.train_seconds if beside.train_seconds is not None else refresh.seconds.get("train")
    if not wording.known(seconds):
        return None
    train = refresh.params.get("train") or {}
    budget = train.get("budget") or {}
    devices, power = budget.get("devices") or 1, budget.get("power")
    watts = power if power is not None else ASSUMED_WATTS.get(train.get("device") or "auto", ASSUMED_WATTS["auto"])
    hours = seconds / 3600 * devices
    carbon, price = budget.get("carbon"), budget.get("price")
    return Spent(
        seconds=seconds,
        devices=devices,
        watts=watts,
        declared=power is not None,
        watt_hours=hours * watts,
        grams=None if carbon is None else hours * watts / 1000 * carbon,
        money=None if price is None else hours * price,
    )


def sentences(found: Spent | None) -> list[str]:
    if found is None:
        return ["The time of training was not measured, so energy and cost are not known."]
    of = f"{wording.duration(found.seconds)} of training on {found.devices} device{'s' if found.devices > 1 else ''}"
    how = "as declared" if found.declared else "an assumption: train.budget.power declares none"
    said = [f"Energy: {amount(found.watt_hours)}, {of} at {found.watts:g} W each ({how})."]
    said += [f"Cost: {found.money:,.4g}, in the unit of train.budget.price."] if found.money is not None else []
    said += [f"Carbon: {found.grams:,.3g} g CO2 equivalent, as declared."] if found.grams is not None else []
    return [*said, "Of the target run alone; data, proxy runs and evaluation are not in it."]


def amount(watt_hours: float) -> str:
    return f"{watt_hours / 1000:.3g} kWh" if watt_hours >= 1000 else f"{watt_hours:.3g} Wh"
