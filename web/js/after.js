/** Have `then` called after the object's own method. */
export function after(object, method, then) {
  const before = object[method];
  object[method] = function (...args) {
    const result = before?.apply(this, args);
    then();
    return result;
  };
}
