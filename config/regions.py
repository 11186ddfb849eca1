"""The countries where health data may be: the EU and the EEA (GDPR, articles 44 and 45; DiGAV, section 4(3))."""

from typing import Final

EU_COUNTRIES: Final = frozenset(
    (
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    )
)
"""The member states as ISO 3166-1 alpha-2 codes."""
EEA_COUNTRIES: Final = EU_COUNTRIES | {"IS", "LI", "NO"}
"""The EU, and the EFTA states of the EEA Agreement. Switzerland is not a member."""
ALLOWED_REGION: Final = "the code of a country of the EU or the EEA, such as DE (ISO 3166-1 alpha-2)"


def is_allowed_region(region: object) -> bool:
    """Whether this is the code of a country of the EU or the EEA, in capital letters."""
    return isinstance(region, str) and region in EEA_COUNTRIES
