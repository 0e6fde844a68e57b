"""Sets a user's password for SCRAM-SHA-256 and SCRAM-SHA-512 with confluent-kafka.

usage: scram.py BROKERS USER PASSWORD
"""

import sys

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

brokers, user, password = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": brokers})
# A broker takes one change of a user in a request.
for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
    change = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
    for changed in admin.alter_user_scram_credentials([change]).values():
        changed.result(120)
