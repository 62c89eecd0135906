"""Settings without a file."""

import loader

report = loader.run(
    {
        "export": {"path": "users.csv"},
        "mapping": {"user": "email"},
        "target": {
            "api": "calven",
            "base_url": "http://127.0.0.1:8080",
            "auth": {"scheme": "client-secret", "key_id": "env:CALVEN_KEY_ID", "secret": "env:CALVEN_SECRET"},
        },
        "limits": {"max_failures": "1%"},
    }
)
