"""What people, and their monitoring, see of a load: screens, report, dashboard, metrics. It only looks."""
