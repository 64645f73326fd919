"""Heartbeats, cron rules, scheduled skills and webhooks, declared once, run by Prefect."""
