# Written by waybill guard. The service control policies belong in the organization's
# management account or its delegated administrator; the role and the endpoint policies in
# the account that calls Bedrock.

variable "waybill_scp_targets" {
  description = "Ids of the organization root, units or accounts to which the service control policies are attached"
  type        = set(string)
  default     = []
}

variable "waybill_vpc_endpoints" {
  description = "Ids of the VPC endpoints of bedrock-runtime and bedrock-mantle"
  type        = set(string)
  default     = []
}

variable "waybill_role_name" {
  description = "Name of the role under which the gateway calls Bedrock; one that the guard's roles match"
  type        = string
  default     = "bedrock"
}

# Nobody but the gateway reaches Bedrock.
resource "aws_organizations_policy" "waybill_scp" {
  name        = "waybill-scp"
  description = "Nobody but the gateway reaches Bedrock"
  type        = "SERVICE_CONTROL_POLICY"
  content = jsonencode({
    "Version": "2012-10-17",
    "Statement": [
      # closed but to those who are named: inference
      {
        "Sid": "WaybillOnlyGateway",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeModel*",
          "bedrock:StartAsyncInvoke",
          "bedrock:Rerank",
          "bedrock-mantle:CreateInference"
        ],
        "Resource": "*",
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/break-glass",
              "arn:aws:iam::*:role/service-role/AmazonBedrockExecutionRoleForAgents_*",
              "arn:aws:iam::111122223333:role/batch",
              "arn:aws:iam::111122223333:role/waybill/bedrock",
              "arn:aws:iam::111122223333:role/waybill/bedrock-?"
            ]
          },
          "StringNotEquals": {
            "aws:PrincipalTag/break-glass": "open"
          }
        }
      },
      # closed but to those who are named: batch
      {
        "Sid": "WaybillClosed",
        "Effect": "Deny",
        "Action": "bedrock:CreateModelInvocationJob",
        "Resource": "*",
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/break-glass",
              "arn:aws:iam::111122223333:role/batch"
            ]
          },
          "StringNotEquals": {
            "aws:PrincipalTag/break-glass": "open"
          }
        }
      },
      # closed but to those who are named: agents, flows, knowledge-bases, data-automation, training
      {
        "Sid": "WaybillClosedAgents",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeAgent",
          "bedrock:InvokeInlineAgent",
          "bedrock:InvokeBuilder",
          "bedrock:InvokeTool",
          "bedrock-mantle:CreateAgentSession*",
          "bedrock:InvokeFlow",
          "bedrock:StartFlowExecution",
          "bedrock:Retrieve*",
          "bedrock:AgenticRetrieve*",
          "bedrock:GenerateQuery",
          "bedrock:StartIngestionJob",
          "bedrock:IngestKnowledgeBaseDocuments",
          "bedrock:InvokeDataAutomation*",
          "bedrock:InvokeBlueprint*",
          "bedrock:OptimizePrompt",
          "bedrock:CreateAdvancedPromptOptimizationJob",
          "bedrock:CreateModelCustomizationJob",
          "bedrock:CreateEvaluationJob",
          "bedrock:CreateModelEvaluationJob",
          "bedrock:CreateProvisionedModelThroughput",
          "bedrock:CreateCustomModelDeployment",
          "bedrock:CreateMarketplaceModelEndpoint",
          "bedrock:UpdateMarketplaceModelEndpoint",
          "bedrock-mantle:CreateFineTuningJob",
          "bedrock-mantle:CreateReservation",
          "bedrock-mantle:UpdateReservation"
        ],
        "Resource": "*",
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": "arn:aws:iam::*:role/break-glass"
          },
          "StringNotEquals": {
            "aws:PrincipalTag/break-glass": "open"
          }
        }
      },
      # closed but to those who are named: guardrails
      {
        "Sid": "WaybillClosedGuardrails",
        "Effect": "Deny",
        "Action": [
          "bedrock:ApplyGuardrail",
          "bedrock:InvokeGuardrailChecks",
          "bedrock:InvokeAutomatedReasoningPolicy"
        ],
        "Resource": "*",
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/break-glass",
              "arn:aws:iam::111122223333:role/waybill/bedrock",
              "arn:aws:iam::111122223333:role/waybill/bedrock-?"
            ]
          },
          "StringNotEquals": {
            "aws:PrincipalTag/break-glass": "open"
          }
        }
      },
      # a Bedrock API key goes past the gateway; short-term ones can be made by anybody offline, so their use is denied, for everybody
      {
        "Sid": "WaybillNoKeys",
        "Effect": "Deny",
        "Action": [
          "bedrock:CallWithBearerToken",
          "bedrock-mantle:CallWithBearerToken"
        ],
        "Resource": "*"
      },
      # no long-term Bedrock API key is made; keys of other services are left alone
      {
        "Sid": "WaybillNoNewKeys",
        "Effect": "Deny",
        "Action": "iam:CreateServiceSpecificCredential",
        "Resource": "*",
        "Condition": {
          "StringEquals": {
            "iam:ServiceSpecificCredentialServiceName": "bedrock.amazonaws.com"
          }
        }
      },
      # whoever could make or change the gateway's role, or one that may pass, could pass: only administrators do
      {
        "Sid": "WaybillRolesAreOurs",
        "Effect": "Deny",
        "Action": [
          "iam:AttachRolePolicy",
          "iam:CreateRole",
          "iam:DeleteRolePermissionsBoundary",
          "iam:DeleteRolePolicy",
          "iam:DetachRolePolicy",
          "iam:PutRolePermissionsBoundary",
          "iam:PutRolePolicy",
          "iam:TagRole",
          "iam:UntagRole",
          "iam:UpdateAssumeRolePolicy"
        ],
        "Resource": [
          "arn:aws:iam::*:role/break-glass",
          "arn:aws:iam::*:role/service-role/AmazonBedrockExecutionRoleForAgents_*",
          "arn:aws:iam::111122223333:role/batch",
          "arn:aws:iam::111122223333:role/waybill/bedrock",
          "arn:aws:iam::111122223333:role/waybill/bedrock-?",
          "arn:aws:iam::111122223333:role/waybill/gateway"
        ],
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/platform",
              "arn:aws:iam::111122223333:user/root-ops"
            ]
          }
        }
      },
      # whoever could hand the gateway's role to a machine or function of theirs could call as the gateway: only administrators do
      {
        "Sid": "WaybillGatewayIsOurs",
        "Effect": "Deny",
        "Action": "iam:PassRole",
        "Resource": [
          "arn:aws:iam::*:role/break-glass",
          "arn:aws:iam::111122223333:role/waybill/gateway"
        ],
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/platform",
              "arn:aws:iam::111122223333:user/root-ops"
            ]
          }
        }
      },
      # whoever could give the break-glass tag could pass: only administrators do
      {
        "Sid": "WaybillGlassIsOurs",
        "Effect": "Deny",
        "Action": [
          "iam:CreateRole",
          "iam:CreateUser",
          "iam:TagRole",
          "iam:TagUser",
          "sts:TagSession"
        ],
        "Resource": "*",
        "Condition": {
          "ArnNotLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/platform",
              "arn:aws:iam::111122223333:user/root-ops"
            ]
          },
          "ForAnyValue:StringEqualsIgnoreCase": {
            "aws:TagKeys": "break-glass"
          }
        }
      }
    ]
  })
}

resource "aws_organizations_policy_attachment" "waybill_scp" {
  for_each  = var.waybill_scp_targets
  policy_id = aws_organizations_policy.waybill_scp.id
  target_id = each.value
}

# Only the gateway becomes these roles, with tags that say whose call it is.
resource "aws_iam_role" "waybill_bedrock" {
  name        = var.waybill_role_name
  path        = "/waybill/"
  description = "Only the gateway becomes these roles, with tags that say whose call it is"
  assume_role_policy = jsonencode({
    "Version": "2012-10-17",
    "Statement": [
      # only the gateway becomes this role, and names the owner of the calls as it does
      {
        "Sid": "WaybillGatewayAssumes",
        "Effect": "Allow",
        "Principal": {
          "AWS": "arn:aws:iam::111122223333:role/waybill/gateway"
        },
        "Action": "sts:AssumeRole",
        "Condition": {
          "StringEquals": {
            "aws:RequestTag/environment": [
              "production",
              "staging"
            ],
            "sts:ExternalId": "wb-1"
          },
          "StringLike": {
            "aws:RequestTag/costCenter": "?*",
            "aws:RequestTag/team": "?*"
          }
        }
      },
      # session tags are what AWS bills by; without this permission AssumeRole with tags fails; no other keys
      {
        "Sid": "WaybillGatewayTags",
        "Effect": "Allow",
        "Principal": {
          "AWS": "arn:aws:iam::111122223333:role/waybill/gateway"
        },
        "Action": "sts:TagSession",
        "Condition": {
          "ForAllValues:StringEquals": {
            "aws:TagKeys": [
              "costCenter",
              "environment",
              "team",
              "user"
            ]
          }
        }
      },
      # the source identity follows the session through CloudTrail
      {
        "Sid": "WaybillGatewayNames",
        "Effect": "Allow",
        "Principal": {
          "AWS": "arn:aws:iam::111122223333:role/waybill/gateway"
        },
        "Action": "sts:SetSourceIdentity"
      }
    ]
  })
}

# The roles call models and do nothing else, and not without their tags.
resource "aws_iam_role_policy" "waybill_role_permissions" {
  name = "waybill-role-permissions"
  role = aws_iam_role.waybill_bedrock.id
  policy = jsonencode({
    "Version": "2012-10-17",
    "Statement": [
      # models on bedrock-runtime: a profile needs the right on itself, on the models behind it, and for some calls on the default project
      {
        "Sid": "WaybillRuntime",
        "Effect": "Allow",
        "Action": [
          "bedrock:InvokeModel",
          "bedrock:InvokeModelWithResponseStream"
        ],
        "Resource": [
          "arn:aws:bedrock:*::foundation-model/anthropic.*",
          "arn:aws:bedrock:*::foundation-model/amazon.nova-?*",
          "arn:aws:bedrock:*:111122223333:inference-profile/*.anthropic.*",
          "arn:aws:bedrock:*:111122223333:inference-profile/*.amazon.nova-?*",
          "arn:aws:bedrock:*:111122223333:application-inference-profile/*",
          "arn:aws:bedrock:*:111122223333:project/default"
        ]
      },
      # stored responses on bedrock-runtime are read, cancelled and deleted on the project
      {
        "Sid": "WaybillStored",
        "Effect": "Allow",
        "Action": [
          "bedrock:GetInvoke",
          "bedrock:CancelInvoke",
          "bedrock:DeleteInvoke"
        ],
        "Resource": "arn:aws:bedrock:*:111122223333:project/default"
      },
      # models on bedrock-mantle, which authorizes on the project
      {
        "Sid": "WaybillMantle",
        "Effect": "Allow",
        "Action": "bedrock-mantle:CreateInference",
        "Resource": "arn:aws:bedrock-mantle:*:111122223333:project/*",
        "Condition": {
          "StringLike": {
            "bedrock-mantle:Model": [
              "anthropic.*",
              "amazon.nova-?*"
            ]
          }
        }
      },
      # stored responses on bedrock-mantle
      {
        "Sid": "WaybillMantleStored",
        "Effect": "Allow",
        "Action": [
          "bedrock-mantle:GetInference",
          "bedrock-mantle:CancelInference",
          "bedrock-mantle:DeleteInference"
        ],
        "Resource": "arn:aws:bedrock-mantle:*:111122223333:project/*"
      },
      # a call that names a guardrail needs the right to apply it
      {
        "Sid": "WaybillGuardrails",
        "Effect": "Allow",
        "Action": "bedrock:ApplyGuardrail",
        "Resource": "arn:aws:bedrock:*:111122223333:guardrail/*"
      },
      # counting tokens and listing models cost nothing
      {
        "Sid": "WaybillReads",
        "Effect": "Allow",
        "Action": [
          "bedrock:CountTokens",
          "bedrock-mantle:CountTokens",
          "bedrock-mantle:GetModel",
          "bedrock-mantle:ListModels"
        ],
        "Resource": "*"
      },
      # no tag team, no call: whatever other policy the role is given
      {
        "Sid": "WaybillTagged1",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeModel*",
          "bedrock:Rerank",
          "bedrock-mantle:CreateInference"
        ],
        "Resource": "*",
        "Condition": {
          "StringNotLike": {
            "aws:PrincipalTag/team": "?*"
          }
        }
      },
      # no tag costCenter, no call: whatever other policy the role is given
      {
        "Sid": "WaybillTagged2",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeModel*",
          "bedrock:Rerank",
          "bedrock-mantle:CreateInference"
        ],
        "Resource": "*",
        "Condition": {
          "StringNotLike": {
            "aws:PrincipalTag/costCenter": "?*"
          }
        }
      },
      # no tag environment, no call: whatever other policy the role is given
      {
        "Sid": "WaybillTagged3",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeModel*",
          "bedrock:Rerank",
          "bedrock-mantle:CreateInference"
        ],
        "Resource": "*",
        "Condition": {
          "StringNotEquals": {
            "aws:PrincipalTag/environment": [
              "production",
              "staging"
            ]
          }
        }
      },
      # credentials that leave the network are of no use elsewhere
      {
        "Sid": "WaybillPrivateWay",
        "Effect": "Deny",
        "Action": [
          "bedrock:InvokeModel*",
          "bedrock:Rerank",
          "bedrock-mantle:CreateInference"
        ],
        "Resource": "*",
        "Condition": {
          "StringNotEquals": {
            "aws:SourceVpce": [
              "vpce-0123456789abcdef0",
              "vpce-0123456789abcdef1"
            ]
          }
        }
      }
    ]
  })
}

# The private way to Bedrock is for those who may call it.
resource "aws_vpc_endpoint_policy" "waybill_vpc_endpoint" {
  for_each        = var.waybill_vpc_endpoints
  vpc_endpoint_id = each.value
  policy = jsonencode({
    "Version": "2012-10-17",
    "Statement": [
      # the gateway's roles and those who are named may use the endpoint; it is shut to everybody else
      {
        "Sid": "WaybillThroughHere",
        "Effect": "Allow",
        "Principal": "*",
        "Action": [
          "bedrock:InvokeModel",
          "bedrock:InvokeModelWithResponseStream",
          "bedrock:GetInvoke",
          "bedrock:CancelInvoke",
          "bedrock:DeleteInvoke",
          "bedrock-mantle:CreateInference",
          "bedrock-mantle:GetInference",
          "bedrock-mantle:CancelInference",
          "bedrock-mantle:DeleteInference",
          "bedrock:ApplyGuardrail",
          "bedrock:CountTokens",
          "bedrock-mantle:CountTokens",
          "bedrock-mantle:GetModel",
          "bedrock-mantle:ListModels"
        ],
        "Resource": "*",
        "Condition": {
          "ArnLike": {
            "aws:PrincipalArn": [
              "arn:aws:iam::*:role/break-glass",
              "arn:aws:iam::*:role/service-role/AmazonBedrockExecutionRoleForAgents_*",
              "arn:aws:iam::111122223333:role/batch",
              "arn:aws:iam::111122223333:role/waybill/bedrock",
              "arn:aws:iam::111122223333:role/waybill/bedrock-?"
            ]
          }
        }
      },
      # and whoever breaks the glass
      {
        "Sid": "WaybillGlassThroughHere",
        "Effect": "Allow",
        "Principal": "*",
        "Action": [
          "bedrock:InvokeModel",
          "bedrock:InvokeModelWithResponseStream",
          "bedrock:GetInvoke",
          "bedrock:CancelInvoke",
          "bedrock:DeleteInvoke",
          "bedrock-mantle:CreateInference",
          "bedrock-mantle:GetInference",
          "bedrock-mantle:CancelInference",
          "bedrock-mantle:DeleteInference",
          "bedrock:ApplyGuardrail",
          "bedrock:CountTokens",
          "bedrock-mantle:CountTokens",
          "bedrock-mantle:GetModel",
          "bedrock-mantle:ListModels"
        ],
        "Resource": "*",
        "Condition": {
          "StringEquals": {
            "aws:PrincipalTag/break-glass": "open"
          }
        }
      }
    ]
  })
}
