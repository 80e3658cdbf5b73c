// A peer that dcmjs-dimse is, for test_services_dcmjs.py.
//
//   node services_dcmjs.js FOLDER ask PORT STUDY     asks a server for all that it can ask
//   node services_dcmjs.js FOLDER serve PORT         serves until it is ended
//
// FOLDER has dcmjs-dimse in its node_modules. One JSON line for each thing that happens.

const [folder, mode, port, study] = process.argv.slice(2);
const { createRequire } = require('module');
const dimse = createRequire(`${folder}/index.js`)('dcmjs-dimse');
dimse.log.setLevel('error');
const { Client, Dataset, Scp, Server } = dimse;
const { Status, PresentationContextResult, SopClass, TransferSyntax } = dimse.constants;
const { requests, responses } = dimse;

const PRINT = '1.2.840.10008.5.1.1.9';
const FILM_SESSION = '1.2.840.10008.5.1.1.1';
const PRINTER = '1.2.840.10008.5.1.1.16';
const PRINTER_INSTANCE = '1.2.840.10008.5.1.1.17';

function say(what) {
  console.log(JSON.stringify(what));
}

function connect(fill, released) {
  const client = new Client();
  fill((name, request, elements) => {
    if (elements) request.setDataset(new Dataset(elements));
    request.on('response', (response) => {
      const answer = { name, status: response.getStatus() };
      if (response.hasDataset()) answer.elements = response.getDataset().getElements();
      if (response.getCompleted) answer.completed = response.getCompleted();
      say(answer);
    });
    client.addRequest(request);
  });
  client.on('cStoreRequest', (request, callback) => {
    say({ name: 'stored', uid: request.getAffectedSopInstanceUid() });
    const response = responses.CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  });
  client.on('networkError', (error) => say({ name: 'error', text: String(error) }));
  client.on('associationReleased', () => {
    say({ name: 'released' });
    if (released) released();
  });
  client.send('127.0.0.1', Number(port), 'DCMJS', 'OURS');
}

function store(add) {
  add('c-store', new requests.CStoreRequest(new Dataset({
    SOPClassUID: '1.2.840.10008.5.1.4.1.1.7', SOPInstanceUID: '1.2.3.4', PatientID: '7',
  }, TransferSyntax.ExplicitVRLittleEndian)));
}

// By itself, for with a C-GET it wants nothing but the SCP role of the storage classes.
function others(add) {
  add('c-echo', new requests.CEchoRequest());
  add('c-find', requests.CFindRequest.createStudyFindRequest({
    PatientName: 'doe*', StudyInstanceUID: '', PatientID: '',
  }));
  add('c-get', requests.CGetRequest.createStudyGetRequest(study));
  add('c-move', requests.CMoveRequest.createStudyMoveRequest('NOBODY', study));
  add('c-move', requests.CMoveRequest.createStudyMoveRequest('DESTINATION', study));
  add('n-create', new requests.NCreateRequest(FILM_SESSION, '1.2.5', PRINT), {
    NumberOfCopies: '1',
  });
  add('n-set', new requests.NSetRequest(FILM_SESSION, '1.2.5', PRINT), { NumberOfCopies: '2' });
  add('n-get', new requests.NGetRequest(FILM_SESSION, '1.2.5', ['NumberOfCopies'], PRINT));
  add('n-action', new requests.NActionRequest(FILM_SESSION, '1.2.5', 1, PRINT));
  add('n-event-report', new requests.NEventReportRequest(PRINTER, PRINTER_INSTANCE, 2, PRINT));
  add('n-delete', new requests.NDeleteRequest(FILM_SESSION, '1.2.5', PRINT));
}

const kept = {};

function image() {
  return new Dataset({
    SOPClassUID: '1.2.840.10008.5.1.4.1.1.7', SOPInstanceUID: '1.2.3.4', PatientID: '7',
  }, TransferSyntax.ImplicitVRLittleEndian);
}

class Peer extends Scp {
  associationRequested(association) {
    this.association = association;
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const known = context.getTransferSyntaxUids().find((uid) => (
        uid === TransferSyntax.ImplicitVRLittleEndian || uid === TransferSyntax.ExplicitVRLittleEndian
      ));
      if (known) context.setResult(PresentationContextResult.Accept, known);
      else context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
    }
    this.sendAssociationAccept();
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }

  answer(kind, request, callback, elements, status = Status.Success) {
    const response = responses[kind].fromRequest(request);
    response.setStatus(status);
    if (elements) response.setDataset(new Dataset(elements));
    callback(response);
  }

  cEchoRequest(request, callback) {
    this.answer('CEchoResponse', request, callback);
  }

  cStoreRequest(request, callback) {
    say({ name: 'stored', uid: request.getAffectedSopInstanceUid() });
    this.answer('CStoreResponse', request, callback);
  }

  cFindRequest(request, callback) {
    const asked = request.getDataset().getElements();
    const found = asked.ScheduledProcedureStepSequence
      ? { PatientID: 'W1', ScheduledProcedureStepSequence: [{ Modality: 'CT' }] }
      : { QueryRetrieveLevel: 'STUDY', StudyInstanceUID: '1.2.3', PatientName: 'DOE^JANE' };
    const pending = responses.CFindResponse.fromRequest(request);
    pending.setStatus(Status.Pending);
    pending.setDataset(new Dataset(found));
    const last = responses.CFindResponse.fromRequest(request);
    last.setStatus(Status.Success);
    callback([pending, last]);
  }

  cGetRequest(request, callback) {
    this.sendRequests(new requests.CStoreRequest(image()));
    const last = responses.CGetResponse.fromRequest(request);
    last.setStatus(Status.Success);
    last.setCompleted(1);
    callback([last]);
  }

  cMoveRequest(request, callback) {
    const last = responses.CMoveResponse.fromRequest(request);
    const title = request.getCommandDataset().getElement('MoveDestination').trim();
    const [, destination] = /^PORT(\d+)$/.exec(title) || [];
    if (!destination) {
      last.setStatus(0xa801);
      callback([last]);
      return;
    }
    const client = new Client();
    client.addRequest(new requests.CStoreRequest(image()));
    client.on('associationReleased', () => {
      last.setStatus(Status.Success);
      last.setCompleted(1);
      callback([last]);
    });
    client.send('127.0.0.1', Number(destination), 'DCMJS', title);
  }

  nCreateRequest(request, callback) {
    kept[request.getAffectedSopInstanceUid()] = request.getDataset().getElements();
    this.answer('NCreateResponse', request, callback);
  }

  nSetRequest(request, callback) {
    Object.assign(kept[request.getRequestedSopInstanceUid()], request.getDataset().getElements());
    this.answer('NSetResponse', request, callback);
  }

  nGetRequest(request, callback) {
    const found = kept[request.getRequestedSopInstanceUid()];
    if (found) this.answer('NGetResponse', request, callback, found);
    else this.answer('NGetResponse', request, callback, undefined, 0x0112);
  }

  nActionRequest(request, callback) {
    this.answer('NActionResponse', request, callback, { PatientID: `${request.getActionTypeId()}` });
  }

  nEventReportRequest(request, callback) {
    say({ name: 'event', type: request.getEventTypeId() });
    this.answer('NEventReportResponse', request, callback);
  }

  nDeleteRequest(request, callback) {
    delete kept[request.getRequestedSopInstanceUid()];
    this.answer('NDeleteResponse', request, callback);
  }
}

if (mode === 'ask') {
  connect(store, () => connect(others));
} else {
  const server = new Server(Peer);
  server.on('networkError', (error) => say({ name: 'error', text: String(error) }));
  server.listen(Number(port));
}
