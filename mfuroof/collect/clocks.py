"""Clocks, power and throttling of an NVIDIA GPU: through NVML, or `nvidia-smi` where its Python binding is missing."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from mfuroof.collect.backend import Clocks

__all__ = ["GpuWatch", "parse_smi", "throttle_reasons"]

REASONS = {
    0x001: "idle",
    0x002: "applications",
    0x004: "power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal",
    0x040: "hw_thermal",
    0x080: "hw_power_brake",
    0x100: "display",
}
"""Bits of NVML's clock event reasons."""
SMI_FIELDS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active"
SMI_EVERY_S = 5.0
"""A call of `nvidia-smi` takes tens of milliseconds: within this time the last answer holds. [s]"""
MILLI = 1e-3


class GpuWatch:
    """Reads the state of one GPU; every failure means that it cannot be read.

    Parameters
    ----------
    uuid
        Of the GPU, as the driver writes it; empty for the first one.
    """

    def __init__(self, uuid: str = "") -> None:
        self._uuid = uuid
        self._nvml: Any = None
        self._handle: Any = None
        self._last: tuple[float, Clocks | None] = (float("-inf"), None)
        try:
            import pynvml

            pynvml.nvmlInit()
            by_uuid = pynvml.nvmlDeviceGetHandleByUUID
            self._handle = by_uuid(uuid) if uuid else pynvml.nvmlDeviceGetHandleByIndex(0)
            self._nvml = pynvml
        except Exception:  # no binding, no library, no permission: `nvidia-smi` may still answer
            self._nvml = None

    def read(self) -> Clocks | None:
        """Return the state now; None where it cannot be read."""
        if self._nvml is not None:
            return self._from_nvml()
        at, clocks = self._last
        if time.monotonic() - at > SMI_EVERY_S:
            clocks = self._from_smi()
            self._last = (time.monotonic(), clocks)
        return clocks

    def driver(self) -> str:
        """Return the version of the driver, "" where it cannot be read."""
        try:
            if self._nvml is not None:
                version = self._nvml.nvmlSystemGetDriverVersion()
                return version.decode() if isinstance(version, bytes) else str(version)
            return _smi("driver_version", self._uuid)
        except Exception:
            return ""

    def _from_nvml(self) -> Clocks | None:
        nvml, handle = self._nvml, self._handle

        def asked(question: Any, *arguments: Any) -> float | None:
            try:
                return float(question(handle, *arguments))
            except Exception:  # this GPU or this user cannot know it
                return None

        power = asked(nvml.nvmlDeviceGetPowerUsage)
        bits = asked(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        clocks = Clocks(
            asked(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            asked(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            None if power is None else power * MILLI,
            asked(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            throttle_reasons(int(bits or 0)),
        )
        return clocks if clocks != Clocks() else None

    def _from_smi(self) -> Clocks | None:
        try:
            return parse_smi(_smi(SMI_FIELDS, self._uuid))
        except Exception:
            return None


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """Return the names of NVML's clock event reasons in a bit mask."""
    return tuple(name for bit, name in REASONS.items() if bits & bit)


def parse_smi(line: str) -> Clocks | None:
    """Return the state in one line of `nvidia-smi`; what it does not know becomes None."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != len(SMI_FIELDS.split(",")):
        return None

    def number(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    try:
        bits = int(fields[4], 16)
    except ValueError:
        bits = 0
    sm, memory, power, temperature = (number(field) for field in fields[:4])
    clocks = Clocks(sm, memory, power, temperature, throttle_reasons(bits))
    return clocks if clocks != Clocks() else None


def _smi(fields: str, uuid: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", uuid or "0"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip().splitlines()[0]
