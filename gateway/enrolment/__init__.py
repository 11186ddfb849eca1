"""The hub's side of enrolment: its identity at the site, its clock, and the requests to the site's enrolment service."""
