/** What is wrong with a file or this machine, in words for the user: the problem, then the cure. */
export class UserError extends Error {
  override name = "UserError";
}
