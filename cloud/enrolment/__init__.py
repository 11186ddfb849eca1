"""Enrolment of hubs: invitations, and the service where hubs enrol, renew their certificates and ask for the time.

It uses files only: it has no access to the clinic's databases.
"""
