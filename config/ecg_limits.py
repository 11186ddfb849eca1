"""The limits of the rules on heart beats."""

from dataclasses import dataclass

from config.limit import Limit


@dataclass(frozen=True)
class EcgLimits:
    """Limits of the rules on heart beats."""

    tachycardia_rate: Limit = Limit(
        131,
        "/min",
        (100, 150),
        (80, 220),
        "NEWS2 (Royal College of Physicians, 2017): 131/min or more scores 3, urgent",
        "R-RULE-1",
    )
    bradycardia_rate: Limit = Limit(
        40, "/min", (35, 55), (25, 60), "NEWS2 (Royal College of Physicians, 2017): 40/min or less scores 3, urgent", "R-RULE-2"
    )
    rate_hysteresis: Limit = Limit(
        5, "/min", (2, 10), (0, 20), "keeps one episode from being split by respiratory variation of the rate", "R-RULE-3"
    )
    rate_persistence: Limit = Limit(
        10,
        "s",
        (5, 30),
        (3, 120),
        "our choice, no guideline: as long as the usual delay of a monitor's rate alarm, 11 s or less. IEC 60601-2-27:2011,"
        " 201.7.9.2.9.101 b), demands that this delay is stated; it asks for no persistence",
        "R-RULE-4",
    )
    exertion_persistence: Limit = Limit(
        600,
        "s",
        (180, 1800),
        (3, 3600),
        "a rate that rises gradually is most often that of exertion; at rest, NEWS2 asks for an observation every hour at"
        " 131/min (our choice, no guideline)",
        "R-RULE-110",
    )
    exertion_moving_persistence: Limit = Limit(
        1800,
        "s",
        (600, 3600),
        (3, 3600),
        "in place of `exertion_persistence` while the acceleration shows that the wearer moves: WHO (2020) asks for 150 min"
        " of moderate activity a week, half an hour on five days (our choice, no guideline)",
        "R-RULE-116",
    )
    exertion_rate: Limit = Limit(
        150,
        "/min",
        (130, 170),
        (100, 200),
        "85 % of the maximum rate at 45 years (Tanaka 2001), the usual target of a stress test; walking stays below it",
        "R-RULE-110",
    )
    exertion_fast_persistence: Limit = Limit(
        60,
        "s",
        (30, 300),
        (3, 600),
        "from 150/min on, a gradual rise is reported after a minute: climbing stairs takes less (our choice, no guideline)",
        "R-RULE-110",
    )
    pause: Limit = Limit(
        3.0,
        "s",
        (2.0, 4.0),
        (1.5, 6.0),
        "ACC/AHA/HRS 2018 bradycardia guideline, section 4.2: sinus pause of 3 s or more",
        "R-RULE-5",
    )
    pause_in_af: Limit = Limit(
        5.0,
        "s",
        (4.0, 6.0),
        (3.0, 8.0),
        "ACC/AHA/HRS 2012 focused update for device-based therapy, 2.1.2: AF with pauses of 5 s or more; in place of `pause`"
        " where AF is known",
        "R-RULE-90",
    )
    af_mean_rate: Limit = Limit(
        110,
        "/min",
        (80, 130),
        (70, 160),
        "ESC 2024 atrial fibrillation guideline, section 6.2: a mean rate at rest below 110/min is the aim of rate control",
        "R-RULE-90",
    )
    af_mean_rate_time: Limit = Limit(
        600,
        "s",
        (300, 1800),
        (60, 3600),
        "our choice, no guideline: longer than most efforts of daily life, and a fast rate that lasts is told within the hour",
        "R-RULE-90",
    )
    af_duration: Limit = Limit(
        30, "s", (30, 120), (20, 600), "ESC 2024 atrial fibrillation guideline, section 3.2: at least 30 s of ECG", "R-RULE-6"
    )
    short_pause: Limit = Limit(
        2.0,
        "s",
        (1.8, 2.5),
        (1.5, 5.0),
        "our choice, no guideline: of 1,300 healthy volunteers 4 % had a pause over 2 s in a day, 0.3 % over 3 s (Pulse, Ten"
        " top tips: 24-hour ECGs); common in sleep and in AF: raise it for such patients",
        "R-RULE-7",
    )
    asystole: Limit = Limit(
        8.0,
        "s",
        (4.0, 8.0),
        (4.0, 10.0),
        "PhysioNet/CinC Challenge 2015: the bedside alarm for asystole is no QRS complex for 4 s; a pause raises a high alert"
        " at 3 s, and from 8 s on it is called asystole (our choice)",
        "R-RULE-80",
    )
    no_beats: Limit = Limit(
        12,
        "s",
        (10, 20),
        (8, 60),
        "a signal without beats from its start may be an electrode that was put on a moment ago (our choice, no guideline)",
        "R-RULE-81",
    )
    no_beats_high: Limit = Limit(
        60,
        "s",
        (30, 120),
        (20, 600),
        "after a minute without a beat an asystole must be assumed (our choice, no guideline)",
        "R-RULE-81",
    )
    tachycardia_critical: Limit = Limit(
        200,
        "/min",
        (170, 220),
        (140, 300),
        "a rate of 200/min or more is beyond the maximum of an adult's sinus node from 20 years on (220 minus age, Fox 1971)",
        "R-RULE-82",
    )
    bradycardia_critical: Limit = Limit(
        30,
        "/min",
        (25, 35),
        (20, 40),
        "a ventricular escape rhythm has 20 to 40/min (ACC/AHA/HRS 2018 bradycardia guideline); healthy young adults reach"
        " 30/min only asleep",
        "R-RULE-82",
    )
    wide_qrs: Limit = Limit(
        120,
        "ms",
        (110, 140),
        (100, 160),
        "ACC/AHA/HRS 2015 supraventricular tachycardia guideline: QRS complexes of 120 ms or more are wide",
        "R-RULE-83",
    )
    wide_rate: Limit = Limit(
        120,
        "/min",
        (110, 140),
        (100, 180),
        "a regular wide complex tachycardia is treated as VT until the contrary is shown (ACC/AHA/HRS 2015, section 3.2); from"
        " 120/min on, so that sinus rhythm in bundle branch block at rest raises none (our choice)",
        "R-RULE-83",
    )
    v_run_beats: Limit = Limit(
        3, "beats", (3, 5), (3, 10), "AHA/ACC/HRS 2017 ventricular arrhythmia guideline: VT is 3 or more beats", "R-RULE-8"
    )
    vt_rate: Limit = Limit(
        100, "/min", (100, 120), (80, 150), "AHA/ACC/HRS 2017 ventricular arrhythmia guideline: VT is over 100/min", "R-RULE-8"
    )
    vt_high_beats: Limit = Limit(
        5,
        "beats",
        (3, 8),
        (3, 30),
        "PhysioNet/CinC Challenge 2015: the bedside alarm for VT is 5 or more ventricular beats over 100/min; VT reaches"
        " high priority long before it is sustained (30 s or more)",
        "R-RULE-9",
    )
    geminy_cycles: Limit = Limit(
        3,
        "cycles",
        (3, 10),
        (3, 60),
        "bigeminy and trigeminy: the pattern three times in a row, the convention of Holter reports",
        "R-RULE-10",
    )
    no_signal: Limit = Limit(
        60,
        "s",
        (30, 120),
        (10, 600),
        "our choice: electrodes are touched and moved for seconds; a minute without a signal hides any rhythm",
        "R-RULE-71",
    )
    af_burden: Limit = Limit(
        11.4,
        "%",
        (5, 25),
        (0.1, 100),
        "KP-RHYTHM (Go et al., JAMA Cardiol 3:601, 2018): from 11.4 % of the observed time, the stroke rate triples",
        "R-RULE-11",
    )
    af_burden_observed: Limit = Limit(
        8,
        "h",
        (8, 16),
        (1, 24),
        "a third of a day; a shorter time does not represent the day (our choice, no guideline)",
        "R-RULE-11",
    )
