// Which node answers: nginx hashes $affinity, and this says what it is.

const LONGEST = 512;

// The name of the model as all of its spellings have it, from the header Tonnage-Model or the JSON body.
function modelOf(r) {
    let name = r.headersIn['Tonnage-Model'];
    if (!name) {
        name = JSON.parse(r.requestText).model;  // throws where the body is not JSON, is compressed, or is in a file
    }
    name = name.slice(0, LONGEST).toLowerCase();
    return name.replace(/^library\//, '').replace(/:latest$/, '');
}

function by_model(r) {
    try {
        r.variables.affinity = modelOf(r);
    } catch (e) {
        r.variables.affinity = '';
    }
    if (!r.variables.affinity) {
        r.variables.affinity = r.variables.request_id;  // random: the nodes share what names no model
    }
    r.internalRedirect('@by_model');
}

export default { by_model };
