"""One drawing of ECG strips and charts, and the report pages made of them, for hub, clinic and replay."""
