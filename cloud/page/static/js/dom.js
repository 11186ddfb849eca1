/** Creates elements without HTML strings, so received text can never become markup. */

export const byId = (id) => document.getElementById(id);

/** `element("p", {class: "quiet"}, "text", child)`; attributes that are null are omitted. */
export function element(name, attributes = {}, ...children) {
  return fillElement(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fillElement(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** Sets a text only if it differs: an unchanged node keeps its selection and is not read again by screen readers. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function fillElement(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}
