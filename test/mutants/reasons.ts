export function reasonOf(_file: string, _change: string): string | undefined {
  return undefined;
}
