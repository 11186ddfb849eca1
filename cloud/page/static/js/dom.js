/** Elements without markup in strings: what comes over the wire can never become HTML. */

export const byId = (id) => document.getElementById(id);

/** `element("p", {class: "quiet"}, "text", child)`; an attribute that is null is left out. */
export function element(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** Change a text only where it differs, so that screen readers and selections are left in peace. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}
