"""Enrolment of hubs: invitations, and the service where hubs enrol, renew their certificates and ask for the time.

Its state is in files of the clinic's folder; it uses the store for the audit log only.
"""
