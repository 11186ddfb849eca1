"""The counters that the demo shows together are of one moment: that of the agent's status."""

from gateway.simulate.progress import DemoProgress


def test_the_samples_sent_are_those_at_the_time_of_the_agents_status() -> None:
    progress = DemoProgress()
    progress.on_strap_event({"event": "streaming", "script_start_us": 0}, 0)
    for second in range(1, 6):
        progress.on_strap_event({"event": "frames", "sent_samples": second * 130}, second * 1_000_000)
    assert "650 samples sent" in progress.format_line()
    progress.on_agent_status({"at_us": 3_500_000, "samples_received": 390})
    assert "strap streaming, 390 samples sent | agent 390 samples received" in progress.format_line()
    progress.on_agent_status({})
    assert "390 samples sent" in progress.format_line()
    progress.on_agent_status({"at_us": 500_000})
    assert "strap streaming, 0 samples sent" in progress.format_line()
