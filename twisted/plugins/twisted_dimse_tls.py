"""Makes ``dicomtls:`` endpoints known to Twisted."""

from twisted_dimse.tls.endpoints import ClientParser, ServerParser

dicomtls_server = ServerParser()
dicomtls_client = ClientParser()
