"""The limits of alerts: their priority, their end, and how further episodes of one kind are joined to one."""

from dataclasses import dataclass

from config.limit import Limit


@dataclass(frozen=True)
class AlertLimits:
    """When an alert is more urgent than its kind, and how further episodes of one kind are joined to an alert."""

    no_signal_medium: Limit = Limit(
        600, "s", (300, 1800), (60, 7200), "our choice: nobody has put the electrodes back within ten minutes", "R-RULE-60"
    )
    no_signal_after_high: Limit = Limit(
        600,
        "s",
        (300, 1800),
        (0, 7200),
        "our choice: a signal that is lost within ten minutes after an alert of high priority may hide its course",
        "R-RULE-60",
    )
    latch_release: Limit = Limit(
        30,
        "s",
        (30, 60),
        (10, 300),
        "IEC 60601-1-8:2020, 6.10 (latching alarm signals); half a minute of beats shows a circulation",
        "R-RULE-61",
    )
    closed_again: Limit = Limit(
        120,
        "s",
        (60, 180),
        (30, 600),
        "our choice: bedside monitors pause a silenced alarm for 2 to 3 min at most",
        "R-RULE-61",
    )
    false_af_evidence: Limit = Limit(
        2,
        "×",
        (1.5, 4),
        (1, 20),
        "our choice: twice the time in which AF is found, for a patient whose clinic marked an alert as false",
        "R-RULE-64",
    )
    false_af_days: Limit = Limit(
        30,
        "d",
        (14, 60),
        (0, 365),
        "our choice: long enough for a drug or a sensor's place to change, and to be looked at",
        "R-RULE-64",
    )
    sustained_vt: Limit = Limit(
        30, "s", (15, 30), (10, 60), "AHA/ACC/HRS 2017 ventricular arrhythmia guideline: VT of 30 s is sustained", "R-RULE-62"
    )
    repeat_medium: Limit = Limit(
        600,
        "s",
        (300, 900),
        (0, 3600),
        "IEC 60601-1-8:2020, 6.8 and Joint Commission NPSG.06.01.01 (alarm fatigue); ten minutes allow six alerts an hour",
        "R-RULE-40",
    )
    repeat_low: Limit = Limit(
        1800,
        "s",
        (600, 3600),
        (0, 86400),
        "IEC 60601-1-8:2020, table 1: low priority is for awareness, not for prompt response; twice an hour is enough",
        "R-RULE-40",
    )
    worse_length: Limit = Limit(
        1.5, "×", (1.25, 2), (1.1, 10), "our choice: an episode half as long again, as a pause of 4.5 s after 3 s", "R-RULE-63"
    )
    worse_rate: Limit = Limit(
        1.2, "×", (1.1, 1.3), (1.05, 3), "our choice: a rate a fifth higher or lower, as 180/min after 150/min", "R-RULE-63"
    )
    worse_number: Limit = Limit(
        2, "×", (2, 4), (1.5, 100), "our choice: twice as many episodes an hour, counted over five minutes", "R-RULE-63"
    )
