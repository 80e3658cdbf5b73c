"""TLS under the upper layer (PS3.15 annex B): profiles, certificates, verification, endpoints.

    dicomtls:2762:key=server.key:cert=server.pem:ca=clients.pem          # a server endpoint
    dicomtls:pacs.example:2762:ca=hospital.pem:cert=we.pem:key=we.key    # a client endpoint

`profiles` has annex B's names, versions and cipher suites; `certificates` reads the files;
`connections` makes and verifies connections; `transport` watches over a handshake; `words` says
what went wrong with one; `endpoints` has the endpoints and the parsers of their strings.
"""
