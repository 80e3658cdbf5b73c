"""Makes ``twistd dimse-scp`` known to Twisted."""

from twisted.application.service import ServiceMaker

dimse_scp = ServiceMaker(
    "DICOM SCP",
    "twisted_dimse.scp.tap",
    "A DICOM archive: receives and keeps images over the network.",
    "dimse-scp",
)
