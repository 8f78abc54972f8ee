"""What a device has to offer to be measured: the protocol that every backend follows, and what can go wrong in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from mfuroof.collect.point import Point

__all__ = ["Backend", "Clocks", "Device", "Kernel", "KernelOutOfMemoryError", "KernelUnsupportedError", "Samples"]


class KernelOutOfMemoryError(Exception):
    """The device has no room for this shape; it is recorded and skipped."""


class KernelUnsupportedError(Exception):
    """The device or its software has no such kernel for this shape; it is recorded and skipped."""


@dataclass(frozen=True)
class Device:
    """What is measured.

    Attributes
    ----------
    name
        As the driver says it.
    kind
        Backend: ``"cuda"``, ``"cpu"``, ``"torch-cpu"``.
    memory_bytes
        Memory of one device. [bytes]
    cache_bytes
        Last cache before memory; buffers rotate over more than this. [bytes]
    count
        Devices of this kind in the machine.
    software
        Versions and settings by name: driver, CUDA, torch, BLAS and so on.
    """

    name: str
    kind: str
    memory_bytes: float = 0.0
    cache_bytes: float = 0.0
    count: int = 1
    software: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Clocks:
    """State of a device just after a measurement; None where it cannot be read."""

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttle: tuple[str, ...] = ()

    @property
    def slowed(self) -> bool:
        """Whether heat or the power supply holds the device back; a power limit is its ordinary state."""
        return any(reason in ("hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal") for reason in self.throttle)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A prepared kernel: its buffers are allocated and filled with random data.

    Attributes
    ----------
    run
        Starts call ``i``; calls rotate over ``sets`` sets of buffers.
    sets
        Together larger than the last cache, so that no call finds its weights there.
    check
        Runs once on poisoned output and returns ||out - reference|| / ||reference|| against higher precision.
    tolerance
        Largest error that is rounding. [fraction]
    timed
        Times the kernel itself, where a backend cannot do it from outside (several processes).
    """

    run: Callable[[int], object]
    sets: int
    check: Callable[[], float]
    tolerance: float
    timed: Callable[[int, int], Samples] | None = None


@dataclass(frozen=True)
class Samples:
    """Times of one call, one value a sample, and how they were taken. [s]"""

    seconds: tuple[float, ...]
    method: str


class Backend(Protocol):
    """A device that can be measured."""

    @property
    def device(self) -> Device:
        """What is measured."""

    @property
    def families(self) -> tuple[str, ...]:
        """Families of points that this device can measure."""

    def variants(self, family: str) -> tuple[str, ...]:
        """Kernels of a family that this software has; "" stands for the only one."""

    def prepare(self, point: Point) -> Kernel:
        """Allocate and fill what a point needs.

        Raises
        ------
        KernelOutOfMemoryError, KernelUnsupportedError
            The point is skipped.
        """

    def time(self, kernel: Kernel, calls: int, samples: int) -> Samples:
        """Return ``samples`` times of one call, each the mean over ``calls`` calls in a row."""

    def clocks(self) -> Clocks | None:
        """Return the state of the device now; None where it cannot be read."""

    def alive(self) -> bool:
        """Tell whether the device still computes after a kernel has failed."""

    def release(self) -> None:
        """Give back what the last kernel held."""

    def close(self) -> None:
        """End what runs beside this process."""
