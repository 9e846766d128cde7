import ts from 'typescript';

const CHANGES = new Set(
  'push pop shift unshift splice sort reverse fill copyWithin set add delete clear write writeUInt8'.split(' '),
);
const ASSIGNMENTS: ReadonlySet<ts.SyntaxKind> = new Set(
  Array.from({ length: ts.SyntaxKind.LastAssignment - ts.SyntaxKind.FirstAssignment + 1 }, (_, i) => {
    return (ts.SyntaxKind.FirstAssignment + i) as ts.SyntaxKind;
  }),
);
const STEPS: ReadonlySet<ts.SyntaxKind> = new Set([ts.SyntaxKind.PlusPlusToken, ts.SyntaxKind.MinusMinusToken]);

/** Whether an expression makes something that can be changed later. */
function isContainer(node: ts.Expression | undefined): boolean {
  if (node === undefined) return false;
  if (ts.isArrayLiteralExpression(node) || ts.isObjectLiteralExpression(node)) return true;
  return ts.isNewExpression(node);
}

function looksReadonly(type: ts.TypeNode | undefined): boolean {
  return type !== undefined && /^(readonly |Readonly)/.test(type.getText());
}

/** The variable at the start of `a.b[0].c`. */
function rootName(node: ts.Expression): string | undefined {
  let inner = node;
  while (ts.isPropertyAccessExpression(inner) || ts.isElementAccessExpression(inner) || ts.isNonNullExpression(inner)) {
    inner = inner.expression;
  }
  return ts.isIdentifier(inner) ? inner.text : undefined;
}

/** The name of the container that `node` changes, if it changes one. */
function changed(node: ts.Node): string | undefined {
  if (ts.isBinaryExpression(node) && ASSIGNMENTS.has(node.operatorToken.kind)) return rootName(node.left);
  if (ts.isDeleteExpression(node)) return rootName(node.expression);
  if ((ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node)) && STEPS.has(node.operator)) {
    return rootName(node.operand);
  }
  if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
    if (CHANGES.has(node.expression.name.text)) return rootName(node.expression.expression);
  }
  return undefined;
}

function allNodes(root: ts.Node): ts.Node[] {
  const nodes: ts.Node[] = [];
  const visit = (node: ts.Node): void => {
    nodes.push(node);
    ts.forEachChild(node, visit);
  };
  visit(root);
  return nodes;
}

/** What a module keeps that can change: each as `line: what`. */
export function mutableModuleState(source: ts.SourceFile): string[] {
  const problems: string[] = [];
  const report = (node: ts.Node, what: string): void => {
    problems.push(`${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${what}`);
  };
  const nodes = allNodes(source);
  const changedNames = new Set(nodes.map(changed).filter((name) => name !== undefined));
  for (const statement of source.statements) {
    if (!ts.isVariableStatement(statement)) continue;
    const isConst = (statement.declarationList.flags & ts.NodeFlags.Const) !== 0;
    const isExported = statement.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword) ?? false;
    for (const declaration of statement.declarationList.declarations) {
      const { name, initializer, type } = declaration;
      if (!isConst) report(declaration, `${name.getText()} is not const`);
      if (!isContainer(initializer)) continue;
      if (changedNames.has(name.getText())) report(declaration, `${name.getText()} is changed`);
      if (isExported && !looksReadonly(type)) report(declaration, `${name.getText()} is exported and not readonly`);
    }
  }
  for (const node of nodes) {
    if (!ts.isPropertyDeclaration(node)) continue;
    const kinds = new Set(node.modifiers?.map((modifier) => modifier.kind));
    if (kinds.has(ts.SyntaxKind.StaticKeyword) && !kinds.has(ts.SyntaxKind.ReadonlyKeyword)) {
      report(node, `static ${node.name.getText()} is not readonly`);
    }
  }
  return problems;
}
