"""Numbers as people read them."""


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and a real minus; as a power of ten below 0.001 and from 1,000 on."""
    if value == 0:
        return "0"
    text = f"{value:#.{digits}g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.{digits - 1}e}"
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text.rstrip(".").replace("-", "−")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', '−')} × 10{raised}"


def decimal(value: float, digits: int = 3) -> str:
    """A number with so many decimals, separators of thousands and a real minus, which zero does not have."""
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")
    return text.replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{decimal(100 * share, digits)}%"


def size(count: int) -> str:
    """Bytes in the unit that keeps the number short."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:,.1f} {unit}"
