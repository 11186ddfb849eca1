"""The kinds of waveform that are analysed, and the analysis of each."""

from typing import TYPE_CHECKING, Final

from gateway.waveform_analysis import EcgWaveformAnalysis

if TYPE_CHECKING:
    from gateway.ppg_waveform import PpgWaveformAnalysis

ANALYSED_WAVEFORMS: Final = frozenset({"ecg", "ppg"})
"""The kinds of waveform that are analysed; others are only recorded."""


def choose_analysis(kind: str) -> type[EcgWaveformAnalysis] | type["PpgWaveformAnalysis"]:
    """Returns the analysis of a kind of `ANALYSED_WAVEFORMS`. That of a PPG is loaded only on a hub with a PPG sensor."""
    if kind == "ppg":
        from gateway.ppg_waveform import PpgWaveformAnalysis  # noqa: PLC0415  0.2 MB that few hubs need

        return PpgWaveformAnalysis
    return EcgWaveformAnalysis
