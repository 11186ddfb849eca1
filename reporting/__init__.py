"""ECG strips, charts and the replay report. The clinic's page shares the drawing of strips and the colours."""
